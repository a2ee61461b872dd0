"""What every job does around its stage: exit code and last line, whatever happens inside."""

import json
import signal
import subprocess
import sys

import pytest

WORK = """
import os, signal, sys, time
from carvana_ray import errors
from carvana_ray.stages import job
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
def work():
    {body}
    return {{"images": 3}}
sys.exit(job.finish("predict", work))
"""


def ended(body: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of work as a job does, in a process of its own."""
    command = [sys.executable, "-c", WORK.format(body=body)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_asked_to_stop_ends_with_75_and_without_a_result(
    number: signal.Signals,
) -> None:
    done = ended(f"os.kill(os.getpid(), {int(number)}); time.sleep(30)")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == "predict: stopped; the same command again goes on from here\n"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise errors.InputError('--data x: no such folder')", 2, "error: --data x: no such"),
        ("raise errors.Unfinished('x: no space left')", 1, "error: x: no space left"),
        ("raise errors.Quarantined('1 is bad', {'bad': 1})", 3, "predict: 1 is bad"),
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
