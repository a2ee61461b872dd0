"""Python code that runs without the rights of root to read every file."""

import os
import shutil
import subprocess
import sys

import pytest
from support.commands import REPOSITORY

RIGHTS = "-dac_override,-dac_read_search"


def run_without_rights(code: str, *arguments: str) -> str:
    """Run code and return what it prints; skip the test where root cannot give up its rights."""
    leash: list[str] = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed, and root can read every file")
        leash = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"]
    command = [*leash, sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout
