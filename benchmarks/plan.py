"""What the plan of a million pictures takes: seconds, file size, memory of the driver.

    python benchmarks/plan.py [--pictures 1000000] [--folder FOLDER]

In a process of its own: a listing of so many pictures (names like Kaggle's, no files), the plan
made, turned into bytes, published, read back as each driver does, and what is left to do computed
while no shard is there. Of each step: seconds, the most resident memory while it ran, and how much
is resident after it. The last line is one JSON object.
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
from carvana_ray.data import layout as carvana
from carvana_ray.storage import FileInfo
from carvana_ray.submission import plan, shards
from carvana_ray.submission.plan import PlanPart

T = TypeVar("T")
LATEST_NS = 1_790_000_000_000_000_000  # versions are times of last change in ns
MB = 1e6


def listing(pictures: int) -> list[FileInfo]:
    """Return a catalogue as `storage.listing` would: every name, size and version its own."""
    found = []
    for number in range(pictures):
        car, view = divmod(number, carvana.VIEWS)
        name = f"{hashlib.sha256(str(car).encode()).hexdigest()[:12]}_{view + 1:02d}.jpg"
        version = str(LATEST_NS + number * 1_234_567)
        found.append(FileInfo(name, 100_000 + number * 7919 % 100_000, version))
    return sorted(found)


def planned(entries: list[FileInfo]) -> PlanPart:
    """Return the first part of the plan, which has them all."""
    part = plan.plan_new([], entries)
    assert part is not None
    return part


def to_do(folder: str, parts: list[PlanPart], entries: list[FileInfo]) -> int:
    """Return the number of shards that are left to make."""
    return len(shards.pending(folder, parts, entries, {}).tasks)


class Steps:
    """Runs steps one after the other and notes what each took."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, float]] = {"imports": _resident()}

    def run(self, name: str, work: Callable[[], T]) -> T:
        """Run a step; return what it returns."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        self.results[name] = {"seconds": round(seconds, 2), **_resident()}
        return result


def _resident() -> dict[str, float]:
    text = Path("/proc/self/status").read_text()
    found = dict(re.findall(r"(\w+):\s+(\d+) kB", text))
    names = {"peak_mb": "VmHWM", "resident_mb": "VmRSS"}
    return {name: round(int(found[key]) * 1024 / MB) for name, key in names.items()}


def measure(pictures: int, folder: str) -> dict[str, Any]:
    """Return the figures; what the job lets go of is let go of here."""
    steps = Steps()
    entries = steps.run("listing", lambda: listing(pictures))
    part = steps.run("plan", lambda: planned(entries))
    data = steps.run("bytes", part.to_bytes)
    size = len(data)
    steps.run(
        "publish", functools.partial(storage.write_atomic, storage.join(folder, part.name), data)
    )
    del part, data
    parts = steps.run("read", lambda: plan.load_plan(folder))
    tasks = steps.run("to_do", lambda: to_do(folder, parts, entries))
    if [entry for part in parts for entry in part.images] != entries:
        raise RuntimeError("the plan that was read is not the one that was made")
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
    parser.add_argument("--folder", help="where to make a temporary folder (default: the system's)")
    flags = parser.parse_args()
    # Spawned, not forked: a child's memory must not begin with that of its parent.
    own = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder, own as process:
        result = process.submit(measure, flags.pictures, folder).result()
    for name, step in result["steps"].items():
        figures = ", ".join(f"{key} {value:g}" for key, value in step.items())
        print(f"{name:8} {figures}")
    about = {"benchmark": "plan", "pictures": flags.pictures}
    print(json.dumps({**about, **result, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
