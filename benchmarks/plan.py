"""Measure the plan of a million images: seconds, file size and memory of the driver.

    python benchmarks/plan.py [--pictures 1000000] [--folder FOLDER]

Runs in a fresh process: lists images (names like Kaggle's, no files), plans, serializes, writes and
loads the plan as each driver does, and computes the pending shards while no shard exists. Prints
the seconds, the peak and the final resident memory of each step. The last line is one JSON object.
"""

import argparse
import functools
import hashlib
import json
import multiprocessing
import platform
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from carvana_ray import storage
from carvana_ray.data import layout
from carvana_ray.storage import FileInfo
from carvana_ray.submission import plan, shards
from carvana_ray.submission.plan import PlanPart

T = TypeVar("T")
LATEST_NS = 1_790_000_000_000_000_000  # versions are modification times in ns
MB = 1e6


def listing(images: int) -> list[FileInfo]:
    """Return a catalog as `storage.list_files` would: every name, size and version is unique."""
    entries = []
    for number in range(images):
        car, view = divmod(number, layout.VIEWS)
        name = f"{hashlib.sha256(str(car).encode()).hexdigest()[:12]}_{view + 1:02d}.jpg"
        version = str(LATEST_NS + number * 1_234_567)
        entries.append(FileInfo(name, 100_000 + number * 7919 % 100_000, version))
    return sorted(entries)


def make_plan(entries: list[FileInfo]) -> PlanPart:
    """Return the first part of the plan, which has all images."""
    part = plan.plan_new([], entries)
    assert part is not None
    return part


def count_pending(folder: str, parts: list[PlanPart], entries: list[FileInfo]) -> int:
    """Return the number of shards to make."""
    return len(shards.pending(folder, parts, entries, {}).tasks)


class Steps:
    """Runs steps and records the seconds and the memory of each."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, float]] = {"imports": _resident()}

    def run(self, name: str, work: Callable[[], T]) -> T:
        """Run a step and return its result."""
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        self.results[name] = {"seconds": round(seconds, 2), **_resident()}
        return result


def _resident() -> dict[str, float]:
    text = Path("/proc/self/status").read_text()
    kilobytes = dict(re.findall(r"(\w+):\s+(\d+) kB", text))
    names = {"peak_mb": "VmHWM", "resident_mb": "VmRSS"}
    return {name: round(int(kilobytes[key]) * 1024 / MB) for name, key in names.items()}


def measure(images: int, folder: str) -> dict[str, Any]:
    """Return the figures. Objects are released where the job releases them."""
    steps = Steps()
    entries = steps.run("listing", lambda: listing(images))
    part = steps.run("plan", lambda: make_plan(entries))
    data = steps.run("bytes", part.to_bytes)
    size = len(data)
    steps.run(
        "publish", functools.partial(storage.write_atomic, storage.join(folder, part.name), data)
    )
    del part, data
    parts = steps.run("read", lambda: plan.load_plan(folder))
    tasks = steps.run("to_do", lambda: count_pending(folder, parts, entries))
    if [entry for part in parts for entry in part.images] != entries:
        raise RuntimeError("the loaded plan differs from the written one")
    memory = steps.results
    return {
        "plan_mb": round(size / MB, 1),
        "shards": tasks,
        "listing_mb": memory["listing"]["resident_mb"] - memory["imports"]["resident_mb"],
        "peak_mb": max(step["peak_mb"] for step in memory.values()),
        "seconds": round(sum(step.get("seconds", 0.0) for step in memory.values()), 1),
        "steps": memory,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--folder", help="parent of the temporary folder (default: the system's)")
    flags = parser.parse_args()
    # Spawn: a forked child would start with its parent's memory.
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder, executor as process:
        result = process.submit(measure, flags.pictures, folder).result()
    for name, step in result["steps"].items():
        figures = ", ".join(f"{key} {value:g}" for key, value in step.items())
        print(f"{name:8} {figures}")
    about = {"benchmark": "plan", "pictures": flags.pictures}
    print(json.dumps({**about, **result, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
