"""Pipelines that are stopped at random moments give what an undisturbed one gives.

Most tests are of the checker itself, `support.pipeline_chaos`, with a quick program instead of a
pipeline. The whole loop takes an hour: ``cd tests && python -m support.pipeline_chaos``.
"""

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import pipeline_chaos
from support.pipeline_chaos import Attempt, Pipelines, compare, deal

from carvana_ray.storage.base import TEMP_PREFIX

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

# Two steps. The file ``mark`` exists if an earlier command was stopped in the second one.
PROGRAM = """
import sys, time
from pathlib import Path
from carvana_ray.runtime import signals
out = Path(sys.argv[2])
def say(text):
    print(text, file=sys.stderr, flush=True)
with signals.stoppable("pipeline"):
    say("pipeline: sample, train; 1 GB free")
    say("draw: starting, 3 images")
    time.sleep(0.3)
    again = (out / "mark").exists()
    (out / "mark").touch()
    say("predict: starting, 3 images")
    time.sleep(0.3)
    (out / "model").mkdir(exist_ok=True)
    (out / "model/model.pt").write_bytes(b"weights")
    (out / "evaluation.csv").write_text("img,dice\\nc.jpg,1\\n")
    (out / "submission.csv").write_text("img,rle_mask\\na.jpg,1 2\\nb.jpg,3 4\\n")
    {fault}
    signals.close()
    print("{{}}")
"""


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pc-") as folder:
        yield Path(folder)


def pipelines(root: Path, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> Pipelines:
    """Return pipelines of `PROGRAM`, with the clean run done."""
    (root / "jobs").mkdir()
    (root / "jobs/pipeline.py").write_text(PROGRAM.format(fault=fault))
    monkeypatch.setattr(pipeline_chaos, "REPOSITORY", root)
    monkeypatch.setattr(pipeline_chaos, "FIRST_S", 0.2)
    found = Pipelines(root, "", within=10)
    found.run_clean()
    return found


def test_a_pipeline_that_resumes_is_good(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = pipelines(root, monkeypatch).run("run", ["KILL", "TERM", "KILL"], 3)
    assert outcome.good, outcome.faults
    struck = [attempt for attempt in outcome.attempts if attempt.strike]
    assert [a.strike for a in struck] + outcome.missed == ["KILL", "TERM", "KILL"]
    assert outcome.attempts[-1].code == 0
    assert {a.step for a in struck} <= {"start", "draw", "predict"}


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ("if again: (out / 'submission.csv').write_text('img\\na.jpg,1 2\\n')", "lost"),
        ("if again: sys.exit(1)", "wrong_codes"),
    ],
)
def test_a_pipeline_that_does_not_resume_well_is_noticed(
    fault: str, counted: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pipelines(root, monkeypatch, fault)
    outcomes = (found.run(f"run-{seed}", ["KILL"], seed) for seed in range(20))
    struck = next(outcome for outcome in outcomes if outcome.attempts[0].step == "predict")
    assert struck.faults[counted]
    assert not struck.good


ATTEMPTS = [Attempt(-9, 3, 2, "KILL", "draw"), Attempt(75, 3, 2, "TERM", "train"), Attempt(0, 9, 2)]


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Path]:
    """The same results in two folders."""
    for name in ("clean", "out"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model/model.pt").write_bytes(b"weights")
        (tmp_path / name / "evaluation.csv").write_text("img,dice\nc.jpg,1\n")
        (tmp_path / name / "submission.csv").write_text("img,rle_mask\na.jpg,1 2\nb.jpg,3 4\n")
    return tmp_path / "clean", tmp_path / "out"


def test_equal_results_and_right_codes_are_good(results: tuple[Path, Path]) -> None:
    assert compare(*results, ATTEMPTS, 10).good


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        ("a.jpg,1 2\n", {"lost": 1, "differ": 1}),
        ("a.jpg,1 2\nb.jpg,3 4\nb.jpg,3 4\n", {"doubled": 1, "differ": 1}),
        ("a.jpg,1 2\nb.jpg,3 5\n", {"differ": 1}),
    ],
)
def test_wrong_rows_are_counted(
    results: tuple[Path, Path], rows: str, faults: dict[str, int]
) -> None:
    clean, out = results
    (out / "submission.csv").write_text(f"img,rle_mask\n{rows}")
    found = compare(clean, out, ATTEMPTS, 10).faults
    assert {name: value for name, value in found.items() if value} == faults


def test_missing_files_drafts_codes_and_late_commands_are_counted(
    results: tuple[Path, Path],
) -> None:
    clean, out = results
    (out / "model/model.pt").unlink()
    (out / "evaluation.csv").write_text("")
    (out / f"model/{TEMP_PREFIX}1").touch()
    wrong = [Attempt(0, 3, 2, "TERM", "draw"), Attempt(1, 3, 11)]
    found = compare(clean, out, wrong, 10).faults
    assert found == {
        "lost": 0,
        "doubled": 0,
        "differ": 2,
        "wrong_codes": 2,
        "late": 1,
        "drafts": 1,
        "processes": 0,
    }


def test_strikes_are_dealt_evenly_and_by_the_seed() -> None:
    dealt = deal(40, 20, 20, random.Random(1))
    assert sorted(strike for run in dealt for strike in run) == ["KILL"] * 40 + ["TERM"] * 20
    assert {len(run) for run in dealt} == {3}
    assert dealt == deal(40, 20, 20, random.Random(1)) != deal(40, 20, 20, random.Random(2))
    assert sorted(map(len, deal(3, 2, 3, random.Random(0)))) == [1, 2, 2]


@pytest.mark.slow
@pytest.mark.ray
def test_a_pipeline_that_is_stopped_three_times_gives_the_same(root: Path, data: Path) -> None:
    found = Pipelines(root, str(data), within=60)
    found.run_clean()
    outcome = found.run("run", ["KILL", "TERM", "KILL"], 0)
    assert outcome.good, outcome
