"""What the work on one image does to its Ray process is told from what the machine does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import REPOSITORY

from carvana_ray.stages.ingest.crash_isolation import find_crashing
from carvana_ray.stages.ingest.ray_trials import in_ray_tasks
from carvana_ray.storage import FileInfo

GOOD, KILLS, RAISES, KILLS_IN_COMPANY = (
    FileInfo(name, 1, "1") for name in ("good", "kills", "raises", "kills in company")
)


@pytest.mark.ray
def test_an_image_whose_work_kills_its_process_alone_is_found(
    ray_session: None, tmp_path: Path
) -> None:
    def work(image: FileInfo) -> None:
        died_before = tmp_path / image.name
        if image == KILLS or (image == KILLS_IN_COMPANY and not died_before.exists()):
            died_before.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if image == RAISES:
            raise ValueError("an error is not a death")

    assert find_crashing([GOOD, KILLS, RAISES, KILLS_IN_COMPANY], in_ray_tasks(work)) == [KILLS]


UNDER_PRESSURE = """
import ray
from carvana_ray.errors import IncompleteError
from carvana_ray.stages.ingest.crash_isolation import find_crashing
from carvana_ray.stages.ingest.ray_trials import in_ray_tasks
from carvana_ray.storage import FileInfo

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)

def work(image):
    import time
    time.sleep(3)

try:
    images = [FileInfo(name, 1, "1") for name in "abcd"]
    print("named:", find_crashing(images, in_ray_tasks(work)))
except IncompleteError as error:
    print("ended:", error)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_machine_that_is_out_of_memory_names_no_image(tmp_path: Path) -> None:
    """Ray's memory monitor kills each task, as if the machine had no memory left."""
    monitor = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "250"}
    done = subprocess.run(
        [sys.executable, "-c", UNDER_PRESSURE],
        env={**os.environ, **monitor, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout.startswith("ended: out of memory while reading a alone, 4 times; all")
