"""Helpers for tests that run the jobs as commands."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CANARY = "CANARYwJalrXUtnFEMI"  # a secret that must never be written anywhere

SMALL = ("--downscale", 8, "--base", 4, "--batch-size", 8, "--holdout-cars", 2, "--val-cars", 1)
Run = Callable[..., subprocess.CompletedProcess[str]]


def result_of(done: subprocess.CompletedProcess[str]) -> dict:
    """Return the JSON object of the last line of a job, which must have succeeded."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
