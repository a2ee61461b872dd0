"""A job's exit code, last line and log, for each way in which its work can end."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from ray import exceptions
from ray.data.exceptions import SystemException

from carvana_ray.stages.guard import print_error

WORK = """
import os, signal, sys, time
import logging
from carvana_ray import config, errors
from carvana_ray.runtime import signals
from carvana_ray.runtime.progress import ProgressMeter
from carvana_ray.stages.guard import run_guarded
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
def work():
    {body}
    return {{"images": 3}}
with signals.stoppable("predict"):
    sys.exit(run_guarded("predict", config.LogFlags({flags}), work))
"""


def ended(body: str, flags: str = "") -> subprocess.CompletedProcess[str]:
    """Run a piece of work as a job does, in a process of its own."""
    command = [sys.executable, "-c", WORK.format(body=body, flags=flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_asked_to_stop_ends_with_75_and_without_a_result(
    number: signal.Signals,
) -> None:
    done = ended(f"os.kill(os.getpid(), {int(number)}); time.sleep(30)")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == "predict: stopped; run the same command again\n"


def test_an_error_that_a_signal_has_become_is_no_error_of_the_job() -> None:
    body = """
    try:
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)
    except KeyboardInterrupt:
        raise RuntimeError("a library's own error")
    """
    done = ended(body)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == "predict: stopped; run the same command again\n"


def test_a_signal_after_the_end_of_the_work_leaves_result_and_code() -> None:
    body = """
    class Stdout:
        def write(self, text):
            os.kill(os.getpid(), signal.SIGTERM)
            return sys.__stdout__.write(text)
        def flush(self):
            sys.__stdout__.flush()
    sys.stdout = Stdout()
    """
    done = ended(body)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"job": "predict", "images": 3}


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise errors.InputError('--data x: no such folder')", 2, "error: --data x: no such"),
        ("raise errors.IncompleteError('x: no space left')", 1, "error: x: no space left"),
        ("raise errors.BadImagesError('1 is bad', {'bad': 1})", 3, "predict: 1 is bad"),
        ("raise KeyError('x')", 1, "Traceback"),
    ],
)
def test_each_end_has_its_code_and_at_most_one_line_of_result(
    body: str, code: int, said: str
) -> None:
    done = ended(body)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == (code in (0, 3))
    if lines:
        assert json.loads(lines[0])["job"] == "predict"
    if code in (2, 3):
        assert len(done.stderr.splitlines()) == 1


def test_a_result_that_is_not_ok_means_exit_code_1() -> None:
    done = ended("return {'ok': False}")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout) == {"job": "predict", "ok": False}


def test_a_traceback_of_what_a_user_can_mend_is_there_where_it_is_asked_for() -> None:
    done = ended("raise errors.InputError('--data x: no such folder')", "verbose=True")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "predict: error: --data x: no such folder"


def in_a_worker(error: Exception) -> Exception:
    """Return an error as Ray raises it here."""
    return exceptions.RayTaskError("f", "Traceback: line 7", error).as_instanceof_cause()


def of_a_dataset(error: Exception) -> Exception:
    """Return an error that is no exception of a map, as Ray Data raises it."""
    error.__cause__ = SystemException()
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        exceptions.WorkerCrashedError(),
        of_a_dataset(exceptions.WorkerCrashedError()),
        of_a_dataset(exceptions.OutOfMemoryError("killed")),
        exceptions.ActorDiedError(),
        exceptions.NodeDiedError("gone"),
        exceptions.OutOfDiskError(),
        exceptions.OutOfMemoryError("killed"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        in_a_worker(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/out/file")),
        in_a_worker(MemoryError("9 GB")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_process_a_full_memory_and_a_full_disk_are_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_error("predict", error, verbose=False) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("predict: error: ")
    assert "--verbose" in line
    print_error("predict", error, verbose=True)
    told = capsys.readouterr().err.splitlines()
    assert len(told) > 1
    assert told[-1] == line


@pytest.mark.parametrize(
    "error",
    [
        in_a_worker(KeyError("x")),
        exceptions.ActorDiedError(  # in its `__init__`
            exceptions.RayTaskError("f", "Traceback: line 7", KeyError("x"), actor_id="1")
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_program_in_a_worker_shows_where_it_was(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_error("predict", error, verbose=False) == 1
    told = capsys.readouterr().err
    assert "line 7" in told
    assert told.splitlines()[-1].startswith("predict: error: ")


SAYS = """
    logging.getLogger("carvana_ray.x").debug("a detail")
    logging.getLogger("carvana_ray.x").info("a step")
    logging.getLogger("carvana_ray.x").warning("a warning")
    with ProgressMeter("predict", 3) as meter:
        meter.set(3)
"""


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ("quiet=True", ["a warning"]),
        ("", ["a step", "a warning", "predict: starting, 3 images", "predict: 3 of 3"]),
        ("verbose=True", ["a detail", "a step", "a warning", "predict: starting, 3 images"]),
    ],
)
def test_quiet_leaves_warnings_and_the_result_verbose_says_more(
    flags: str, shown: list[str]
) -> None:
    done = ended(SAYS, flags)
    assert json.loads(done.stdout) == {"job": "predict", "images": 3}
    for words in shown:
        assert words in done.stderr
    if "quiet" in flags:
        assert done.stderr == "a warning\n"
    assert ("a detail" in done.stderr) == ("verbose" in flags)
