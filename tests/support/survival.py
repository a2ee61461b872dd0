"""Photographs, crashes and waiting, for tests in which a job loses a process."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.pairs import draw_pair
from support.watched import SIZE

from carvana_ray import config
from carvana_ray.runtime.resources import ClusterResources

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)  # as the fixture `ray_session` starts it

# Makes any image that starts with b"KILL" crash the process that reads it, as a fault in a decoder
# would: Python runs a file sitecustomize.py at its start if its folder is on PYTHONPATH.
KILLER = """
import os, signal, zlib
crc32 = zlib.crc32
def checked(data, *more):
    if bytes(data[:4]) == b"KILL":
        os.kill(os.getpid(), signal.SIGSEGV)
    return crc32(data, *more)
zlib.crc32 = checked
"""


def draw(folder: Path, first: int, last: int) -> list[str]:
    """Draw images number first to last - 1 into a folder; return their names.

    From number 200 on they repeat.
    """
    folder.mkdir(exist_ok=True)
    names = [f"car_{number:05d}.jpg" for number in range(first, last)]
    for number, name in enumerate(names, first):
        (folder / name).write_bytes(draw_pair(number % 200, SIZE)[0])
    return names


def wait_for(event: str, condition: Callable[[], object], job: subprocess.Popen) -> None:
    """Wait up to 300 s until a condition holds; fail if the job ends first."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"{event} did not come"
        assert job.poll() is None, f"the job ended before {event}"
        time.sleep(0.05)


def predicted(photos: Path, model: Path, out: Path, **flags: Any) -> dict[str, Any]:
    """Run a prediction in the Ray session of these tests."""
    from carvana_ray.stages.predict import stage as predict

    values = {"data": str(photos), "model": str(model), "out": str(out), **flags}
    return predict.run(config.PredictFlags(**values), HERE)


def shards_in(out: Path) -> set[str]:
    """Return the names of the shards of all runs in a folder of results."""
    return {path.name for path in out.glob("predict/*/shards/*.parquet")}
