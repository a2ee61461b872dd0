"""Written files are whole, whenever their writer is killed and however full the disk is.

Processes to be killed or limited run this file as a command.
"""

import errno
import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import chaos, watched

from carvana_ray import storage
from carvana_ray.storage.base import TEMP_PREFIX

KILLS = 200
LARGEST = 3_000_000
MB = 1 << 20
Disk = Callable[[str, Path], Path]


def payload(size: int, key: int) -> bytes:
    """Return bytes that show whether they are complete: their number, then a repeated digest."""
    head = f"{size:010d}".encode()
    digest = hashlib.sha256(b"%d %d" % (size, key)).digest()
    return (head + digest * (size // len(digest) + 1))[:size]


def is_whole(data: bytes) -> bool:
    """Return whether data is a complete result of `payload`."""
    if len(data) < 50 or not data[:10].isdigit():
        return False
    size, digest = int(data[:10]), data[10:42]
    return data == (data[:10] + digest * (size // len(digest) + 1))[:size]


def write_forever(folder: str, key: int) -> None:
    """Write files of random sizes, new ones and replacements, until killed."""
    rng = random.Random(key)
    for number in itertools.count():
        data = payload(int(LARGEST ** rng.uniform(0.4, 1)), key)
        if number % 2:
            storage.write_atomic(storage.join(folder, f"replaced-{number % 8}"), data, replace=True)
        else:
            storage.write_atomic(storage.join(folder, f"new-{key}-{number}"), data)


def write_in_place_forever(folder: str, key: int) -> None:
    """Write the same files in place, as a program must not do."""
    rng = random.Random(key)
    for number in itertools.count():
        with open(storage.join(folder, f"replaced-{number % 8}"), "wb") as file:
            file.write(payload(int(LARGEST ** rng.uniform(0.4, 1)), key))


def kill_writers(folder: str, kills: int, writer: Callable[[str, int], None]) -> dict[str, int]:
    """Start a writer and kill it, many times; count the visible files and the torn ones.

    It runs in a process without threads, where a fork is cheap and safe.
    """
    rng = random.Random(0)
    files = torn = temps = 0
    for key in range(kills):
        child = os.fork()
        if not child:
            try:
                writer(folder, key)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "it ended before it was killed"
        for entry in storage.list_files(folder):
            files += 1
            uri = storage.join(folder, entry.name)
            torn += not is_whole(storage.read(uri))
            if entry.name.startswith("new-"):
                storage.remove(uri)
        for name in os.listdir(folder):
            if name.startswith(TEMP_PREFIX):
                temps += 1
                os.unlink(os.path.join(folder, name))
    return {"files": files, "torn": torn, "temps": temps}


def write_with_size_limit(folder: str, how: str) -> dict[str, Any]:
    """Run `write_too_much` where no file may exceed 2 MB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # otherwise the signal ends the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MB, 2 * MB))
    return write_too_much(folder, how)


def write_too_much(folder: str, how: str) -> dict[str, Any]:
    """Write two files of 3 MB, one over an older file; return the errors and the files left."""
    storage.write_atomic(storage.join(folder, "older"), payload(1000, 0))
    numbers: list[int | None] = []
    for name in ("older", "new"):
        uri = storage.join(folder, name)
        try:
            if how == "atomic_writer":
                with storage.atomic_writer(uri) as file:
                    for _ in range(3):
                        file.write(payload(MB, 1))
            else:
                storage.write_atomic(uri, payload(3 * MB, 1), replace=how == "replace")
            numbers.append(0)
        except OSError as error:
            numbers.append(error.errno)
    older = storage.read(storage.join(folder, "older")) == payload(1000, 0)
    return {"errors": numbers, "older": older, "names": sorted(os.listdir(folder))}


def in_a_process(*arguments: object) -> dict[str, Any]:
    """Run a function of this file in its own process; return its result."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # to import `support`
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def command(name: str, folder: str, *rest: str) -> dict[str, Any]:
    """Run a function by name: the other side of `in_a_process`."""
    if name == "kill_writers":
        return kill_writers(folder, int(rest[0]), globals()[rest[1]])
    return globals()[name](folder, *rest)


def test_no_torn_file_is_seen_after_200_kills(tmp_path: Path) -> None:
    found = in_a_process("kill_writers", tmp_path, KILLS, write_forever.__name__)
    assert found["torn"] == 0
    assert found["files"] > KILLS
    assert found["temps"] > KILLS / 4, "too few writers were killed while writing"


def test_torn_files_of_a_writer_in_place_are_seen(tmp_path: Path) -> None:
    found = in_a_process("kill_writers", tmp_path, 20, write_in_place_forever.__name__)
    assert found["torn"] > 0


@pytest.mark.parametrize("cut", [0, 5, 49, 1000, 99_999])
def test_a_part_of_a_file_is_not_whole(cut: int) -> None:
    assert is_whole(payload(100_000, 7))
    assert not is_whole(payload(100_000, 7)[:cut])
    assert not is_whole(payload(100_000, 7)[:50_000] + payload(100_000, 8)[50_000:])


@pytest.mark.parametrize("how", ["new", "replace", "atomic_writer"])
def test_a_file_over_the_size_limit_is_an_error_and_is_absent(tmp_path: Path, how: str) -> None:
    found = in_a_process("write_with_size_limit", tmp_path, how)
    assert found == {"errors": [errno.EFBIG] * 2, "older": True, "names": ["older"]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a small file system in memory on a folder; skip if that is not allowed."""
    mounted = []

    def mount(size: str, place: Path) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("how", ["new", "replace", "atomic_writer"])
def test_a_full_disk_is_an_error_and_the_older_file_stays(
    disk: Disk, tmp_path: Path, how: str
) -> None:
    found = in_a_process("write_too_much", disk("2m", tmp_path), how)
    assert found == {"errors": [errno.ENOSPC] * 2, "older": True, "names": ["older"]}


@pytest.fixture
def job() -> Iterator[watched.Job]:
    """A prediction that has not started: 400 images, 1.4 MB of rows."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as root:
        job = watched.Job(watched.draw(Path(root), 400, 20), "job")
        try:
            yield job
        finally:
            job.kill_all()


def wait_for_failure(job: watched.Job) -> None:
    """Wait for a job to end with an error and without a submission."""
    job.wait(lambda: job.process.poll() is not None, watched.JOB_S, "the job to end")
    assert job.process.returncode not in (0, 3, 75), job.seen()
    assert not (job.out / "submission.csv").exists()
    assert not list(job.out.glob("predict/*/_SUCCESS.json"))


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_whose_results_do_not_fit_fails(job: watched.Job, disk: Disk) -> None:
    disk("300k", job.out)
    job.start()
    wait_for_failure(job)


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_fails_when_the_disk_fills_up_and_resumes_when_there_is_space(
    job: watched.Job, disk: Disk
) -> None:
    disk("16m", job.out)
    job.start()
    job.wait(lambda: list(job.out.glob("predict/*/plan*")), watched.START_S, "the plan")
    ballast = job.out / "ballast"
    free = shutil.disk_usage(job.out).free
    ballast.write_bytes(bytes(free - 200_000))  # some of the shards fit, but not all
    wait_for_failure(job)
    kept = job.committed()
    rows = [pq.read_table(path, columns=["img"]).num_rows for path in kept]
    assert rows == [20] * len(kept), "a shard is torn"
    assert len(kept) < 20

    ballast.unlink()
    job.start()
    result = job.result()
    assert (result["images"], result["bad"], result["resumed_shards"]) == (400, 0, len(kept))
    outcome = chaos.compare(job, "disk", kept, 0)
    assert (outcome.lost, outcome.doubled, outcome.foreign, outcome.shards_redone) == (0, 0, 0, 0)

    # The same command again needs space for a second submission and report, not for the shards.
    ballast.write_bytes(bytes(shutil.disk_usage(job.out).free - 4_000_000))
    job.start()
    assert job.result()["resumed_shards"] == 20


if __name__ == "__main__":
    print(json.dumps(command(*sys.argv[1:])))
