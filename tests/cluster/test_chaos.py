"""A prediction that loses a process continues; after a lost driver the same command continues.

The second half tests the checker itself, `support.chaos`. `make chaos` kills twenty times.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import chaos, watched

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, inotify")

IMAGES, SHARD_SIZE = 400, 20


@pytest.fixture(scope="module")
def setting() -> Iterator[watched.Setting]:
    """Images, a model and an undisturbed run."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as root:  # short: Ray makes sockets below it
        yield chaos.prepare(Path(root), IMAGES, SHARD_SIZE)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("driver", 1),
        pytest.param("worker", 4, marks=pytest.mark.slow),  # while it reads images
        pytest.param("actor", 3, marks=pytest.mark.slow),
        pytest.param("raylet", 1, marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_does_no_damage(setting: watched.Setting, kind: str, seed: int) -> None:
    outcome = chaos.run_once(setting, kind, seed)
    assert outcome.good, outcome


@pytest.fixture
def finished(tmp_path: Path) -> watched.Job:
    """A finished job, made without Ray: three images in two shards."""
    names = ("a.jpg", "b.jpg", "c.jpg")
    setting = watched.Setting(tmp_path, names, 2)
    for name in ("clean", "killed"):
        job = watched.Job(setting, name)
        (job.out / "submission.csv").write_text("img,rle_mask\na.jpg,1 2\nb.jpg,3 4\nc.jpg,5 6\n")
        (job.out / "predict/run/shards").mkdir(parents=True)
        for shard in ("0", "1"):
            (job.out / f"predict/run/shards/{shard}.parquet").write_text(shard)
    return job


def test_a_run_without_damage_is_good(finished: watched.Job) -> None:
    outcome = chaos.compare(finished, "x", finished.committed(), 0)
    assert outcome.good
    assert outcome.shards_at_kill == 2


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        ("a.jpg,1 2\nb.jpg,3 4\n", {"lost": 1}),
        ("a.jpg,1 2\nb.jpg,3 4\nc.jpg,5 6\nc.jpg,5 6\n", {"doubled": 1}),
        ("a.jpg,1 2\nb.jpg,3 4\nc.jpg,5 6\nd.jpg,5 6\n", {"foreign": 1}),
        ("a.jpg,1 2\nb.jpg,5 6\nc.jpg,3 4\n", {}),
    ],
)
def test_a_wrong_row_is_counted(finished: watched.Job, rows: str, faults: dict[str, int]) -> None:
    (finished.out / "submission.csv").write_text(f"img,rle_mask\n{rows}")
    outcome = chaos.compare(finished, "x", {}, 0)
    assert not outcome.identical
    assert not outcome.good
    assert {name: n for name in chaos.FAULTS if (n := getattr(outcome, name))} == faults


def test_a_shard_that_is_made_twice_is_counted(finished: watched.Job) -> None:
    kept = finished.committed()
    rewritten, removed = sorted(kept)
    status = rewritten.stat()
    rewritten.with_suffix(".new").write_text("0")
    rewritten.with_suffix(".new").rename(rewritten)
    os.utime(rewritten, ns=(status.st_atime_ns, status.st_mtime_ns))  # this does not hide it
    removed.unlink()
    outcome = chaos.compare(finished, "x", kept, 0)
    assert outcome.shards_redone == 2
    assert not outcome.good


def test_opened_files_are_recorded_and_listed_files_are_not(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    opened = watched.Opened(tmp_path)
    assert {entry.name: entry.stat().st_size for entry in os.scandir(tmp_path)} == {
        "a.jpg": 1,
        "b.jpg": 1,
    }
    (tmp_path / "b.jpg").read_bytes()
    assert opened.names() - {""} == {"b.jpg"}


def test_a_job_that_fails_or_hangs_shows_its_output(tmp_path: Path) -> None:
    job = watched.Job(watched.Setting(tmp_path.resolve(), (), 1), "job")
    program = "import sys; print('one', flush=True); sys.exit('two')"
    job.process = job.spawn("job", ["-c", program])
    with pytest.raises(watched.JobFailedError, match=r"(?s)exit code 1.*two.*one"):
        job.result()
    job.process = job.spawn("job", ["-c", "import time; time.sleep(60)"])
    with pytest.raises(watched.JobFailedError, match=r"(?s)waited 0.3 s for rain.*time.sleep"):
        job.wait(lambda: False, 0.3, "rain")
    assert list(job.processes()) == [job.process.pid]
    job.kill_all()
    assert job.process.wait(10) < 0
    assert not job.processes()
