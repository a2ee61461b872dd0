"""A session of Ray says what it has, and else nothing."""

import subprocess
import sys

import pytest

SMALL = """
import sys
from carvana_ray.stages import session
assert "ray.data" not in sys.modules  # as where a job joins a cluster before it loads its stage
with session.session(1, {verbose}):
    import ray.data
    assert ray.data.range(3).map_batches(lambda batch: batch).count() == 3
    assert ray.data.range(3).map_batches(lambda batch: batch).take_all()
"""


@pytest.mark.ray
@pytest.mark.parametrize("verbose", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ray_data_says_nothing_unless_asked_to(verbose: bool) -> None:
    command = [sys.executable, "-c", SMALL.format(verbose=verbose)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("execution finished" in done.stderr) == verbose
    if not verbose:
        assert done.stdout + done.stderr == ""
