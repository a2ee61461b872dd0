"""A prediction that loses a process goes on by itself, one that loses its driver when it is asked
to; and `chaos`, which says so, can tell when they do not. `make chaos` kills twenty times."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import chaos, watched

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, inotify")

PICTURES, SHARD_SIZE = 400, 20


@pytest.fixture(scope="module")
def setting() -> Iterator[watched.Setting]:
    """Pictures, a model and a run that nobody killed."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as root:  # short, for the sake of sockets
        yield chaos.prepare(Path(root), PICTURES, SHARD_SIZE)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("driver", 1),
        pytest.param("worker", 4, marks=pytest.mark.slow),  # while it reads pictures
        pytest.param("actor", 3, marks=pytest.mark.slow),
        pytest.param("raylet", 1, marks=pytest.mark.slow),
    ],
)
def test_a_death_costs_nothing(setting: watched.Setting, kind: str, seed: int) -> None:
    outcome = chaos.run_once(setting, kind, seed)
    assert outcome.good, outcome


@pytest.fixture
def finished(tmp_path: Path) -> watched.Job:
    """A job that has ended as it should, without Ray: three pictures in two shards."""
    names = ("a.jpg", "b.jpg", "c.jpg")
    setting = watched.Setting(tmp_path, names, 2)
    for name in ("clean", "killed"):
        job = watched.Job(setting, name)
        (job.out / "submission.csv").write_text("img,rle_mask\na.jpg,1 2\nb.jpg,3 4\nc.jpg,5 6\n")
        (job.out / "predict/run/shards").mkdir(parents=True)
        for shard in ("0", "1"):
            (job.out / f"predict/run/shards/{shard}.parquet").write_text(shard)
    return job


def test_a_run_without_fault_is_good(finished: watched.Job) -> None:
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


def test_a_shard_that_is_written_again_is_counted(finished: watched.Job) -> None:
    kept = finished.committed()
    again, gone = sorted(kept)
    status = again.stat()
    again.with_suffix(".new").write_text("0")
    again.with_suffix(".new").rename(again)
    os.utime(again, ns=(status.st_atime_ns, status.st_mtime_ns))  # nor does this hide it
    gone.unlink()
    outcome = chaos.compare(finished, "x", kept, 0)
    assert outcome.shards_redone == 2
    assert not outcome.good


def test_a_picture_that_is_opened_is_seen_and_one_that_is_listed_is_not(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    opened = watched.Opened(tmp_path)
    assert {entry.name: entry.stat().st_size for entry in os.scandir(tmp_path)} == {
        "a.jpg": 1,
        "b.jpg": 1,
    }
    (tmp_path / "b.jpg").read_bytes()
    assert opened.names() - {""} == {"b.jpg"}


def test_a_job_that_fails_or_hangs_shows_what_it_printed(tmp_path: Path) -> None:
    job = watched.Job(watched.Setting(tmp_path.resolve(), (), 1), "job")
    told = "import sys; print('one', flush=True); sys.exit('two')"
    job.process = job.spawn("job", ["-c", told])
    with pytest.raises(watched.Failed, match=r"(?s)exit code 1.*two.*one"):
        job.result()
    job.process = job.spawn("job", ["-c", "import time; time.sleep(60)"])
    with pytest.raises(watched.Failed, match=r"(?s)waited 0.3 s for rain.*time.sleep"):
        job.wait(lambda: False, 0.3, "rain")
    assert list(job.processes()) == [job.process.pid]
    job.kill_all()
    assert job.process.wait(10) < 0
    assert not job.processes()
