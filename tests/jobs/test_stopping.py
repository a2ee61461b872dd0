"""SIGTERM and Ctrl-C end a job with 75 and one line at any moment, and Ray's processes with it."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import REPOSITORY, SMALL
from support.survival import draw
from support.watched import END_S, JOB_S, Job, Setting

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]

LINE = "{}: stopped; "  # and what is kept and lost, see `runtime.signals`
LEFT_S = 15  # for the programs of Ray to end; a worker that is just starting takes longer
ENDED_S = 15  # for the job to end, on a busy machine; `signals.GRACE_S` on an idle one


@pytest.fixture
def job() -> Iterator[Job]:
    """A folder of its own for a job; what is left of it is killed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    with tempfile.TemporaryDirectory(prefix="stop-") as root:  # short: Ray makes sockets below it
        job = Job(Setting(Path(root).resolve(), (), 0), "job")
        yield job
        job.kill_all()


def start(job: Job, command: str, *flags: object) -> None:
    """Start a command that writes to the folder ``out`` of its job."""
    words = [str(REPOSITORY / "jobs" / f"{command}.py"), "--out", str(job.out), *map(str, flags)]
    job.process = job.spawn("job", words)


def stop(job: Job, how: str) -> None:
    """Send SIGTERM or SIGINT to the job, or as a terminal does, SIGINT to its process group."""
    if how == "group":
        os.killpg(job.process.pid, signal.SIGINT)
    else:
        job.process.send_signal(signal.Signals[how])


def is_running(job: Job, name: str) -> bool:
    """Return whether a program of Ray runs."""
    return any(name in title.split(" ")[0] for title in job.processes().values())


def has_driver_log(job: Job) -> bool:
    """Return whether Ray's native part of the driver has started, the last step of its start."""
    return any((job.home / "ray").glob("**/python-core-driver-*.log"))


# In the order in which they come.
MOMENTS: dict[str, Callable[[Job], bool]] = {
    "gcs_server": lambda job: is_running(job, "gcs_server"),
    "raylet": lambda job: is_running(job, "raylet"),
    "driver": has_driver_log,
}


def require_stopped(job: Job, command: str) -> None:
    """Wait for the end of a job that was asked to stop, and of all its processes.

    A job that had ended before it was asked has its result and exit code 0.
    """
    code = job.process.wait(ENDED_S)
    lines = (job.home / "job.err").read_text().splitlines()
    results = (job.home / "job.out").read_text().splitlines()
    assert (code, len(results)) in ((75, 0), (0, 1)), job.seen()
    stopped = [number for number, line in enumerate(lines) if line.startswith(LINE.format(command))]
    assert stopped == [len(lines) - 1] * (code == 75), job.seen()
    assert not [line for line in lines if "Traceback" in line or "SIG" in line], job.seen()
    running = ("gcs_server", "raylet")
    job.wait(lambda: not any(is_running(job, n) for n in running), LEFT_S, "Ray to end")
    job.wait(job.is_quiet, END_S, "Ray's workers to end")


@pytest.mark.parametrize(
    ("moment", "how"), [("gcs_server", "SIGTERM"), ("raylet", "group"), ("driver", "SIGTERM")]
)
def test_a_job_that_is_stopped_while_ray_starts_ends_with_75(
    moment: str, how: str, job: Job
) -> None:
    start(job, "sample", "--sample-cars", 1, "--sample-test-cars", 0)
    job.wait(lambda: MOMENTS[moment](job), JOB_S, moment)
    stop(job, how)
    require_stopped(job, "sample")
    assert job.process.returncode == 75


@pytest.mark.parametrize("how", ["SIGTERM", "group"])
def test_a_job_without_ray_that_is_stopped_ends_with_75_and_with_its_children(
    how: str, job: Job, finished: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "photos", 0, 128)
    start(job, "predict", "--data", tmp_path / "photos", "--model", finished / "model")
    job.wait(lambda: list(job.out.glob("predict/*/shards/*")), JOB_S, "the first shard")
    assert len(job.processes()) > 1
    assert not is_running(job, "raylet")
    stop(job, how)
    require_stopped(job, "predict")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "predict --ray always", "pipeline"])
@pytest.mark.parametrize(
    ("how", "after"),
    [("SIGTERM", after) for after in (0.2, 0.5, 1, 2, 3, 4, 6, 9, 13)]
    + [(how, after) for how in ("SIGINT", "group") for after in (0.2, 1, 3, 6)],
)
def test_a_job_that_is_stopped_at_any_time_ends_with_75(
    how: str, after: float, command: str, job: Job, data: Path, finished: Path
) -> None:
    command, *more = command.split()
    own = {"predict": ("--model", finished / "model"), "pipeline": (*SMALL, "--epochs", 3)}
    start(job, command, "--data", data, *own[command], *more)
    time.sleep(after)
    stop(job, how)
    require_stopped(job, command)
