"""Measure a catalog that grows: what its plan costs after 1, 30, ... additions, and at once.

    python benchmarks/growth.py [--additions 365] [--pictures 64] [--folder .] [--latency-ms 0]

Each addition makes a part of the plan and its shards, which are written without a network, with
texts as long as those of real masks. Names of cars are random, so the rows of all parts interleave.
At some sizes a fresh process each does what the next prediction does, with nothing left to predict:

    plan      read the parts of the plan and all shards
    merge     write and validate the submission
    review    measure all masks; without Ray's start, at the last size, on a disk only

With an s3:// folder the requests are counted too, and each one may be delayed. The last line is one
JSON object.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from merge import RUN, TEXTS, draw_text, in_fresh_process, write_shard

from carvana_ray import config, storage
from carvana_ray.data import layout
from carvana_ray.data.catalog import Catalog
from carvana_ray.storage import FileInfo, s3_client
from carvana_ray.submission import plan, shards
from carvana_ray.submission.merge import merge_shards
from carvana_ray.submission.plan import PlanPart

MARKS = (1, 30, 90, 180, 365)  # additions
CPUS = 3  # of Ray


def draw_entries(count: int) -> list[FileInfo]:
    """Return images in the order in which they are added, car by car."""
    return [
        FileInfo(f"{car * 0x9E3779B97F4A7C15 % 2**48:012x}_{view + 1:02d}.jpg", 500_000, "1")
        for car, view in (divmod(number, layout.VIEWS) for number in range(count))
    ]


def add(folder: str, parts: list[PlanPart], entries: list[FileInfo], texts: list[str]) -> None:
    """Plan the images that are new in `entries`, and write their part of the plan and shards."""
    part = plan.plan_new(parts, sorted(entries))
    assert part is not None
    storage.write_atomic(storage.join(folder, part.name), part.to_bytes())
    for shard in range(part.shards):
        numbers = range(7 * shard, 7 * shard + len(part.shard(shard)))
        write_shard(folder, part, shard, [texts[number % len(texts)] for number in numbers])
    parts.append(part)


def plan_again(folder: str, catalog: Catalog, _: list[PlanPart]) -> None:
    """Compare the plan and all shards with the catalog."""
    parts = plan.load_plan(folder)
    new = plan.plan_new(parts, catalog.entries)
    if new or shards.pending(folder, parts, catalog.entries, {}).tasks:
        raise RuntimeError(f"{folder}: something is left to do")


def merge(folder: str, catalog: Catalog, parts: list[PlanPart]) -> None:
    """Merge and validate the submission."""
    flags = config.PredictFlags(model="m", out=folder)
    merge_shards(flags, parts, folder, catalog, storage.state(flags.submission_uri), 0)


def review(folder: str, catalog: Catalog, parts: list[PlanPart]) -> None:
    """Measure and rank all masks. The images do not exist, so that no figures are made."""
    from carvana_ray.stages.engine import ray_engine
    from carvana_ray.stages.predict.review_masks import review_masks

    _, crcs = review_masks(folder, folder, parts, catalog, ray_engine())
    if len(crcs) != len(catalog.entries):
        raise RuntimeError(f"{len(crcs)} of {len(catalog.entries)} masks were measured")


STEPS: dict[str, Callable[[str, Catalog, list[PlanPart]], None]] = {
    "plan": plan_again,
    "merge": merge,
    "review": review,
}


def run(step: str, folder: str, entries: list[FileInfo], latency_s: float) -> dict[str, Any]:
    """Do one step; return its figures."""
    names = [entry.name for entry in sorted(entries)]
    catalog = Catalog("", sorted(entries), names, (layout.HEIGHT, layout.WIDTH), {})
    requests: list[str] = []
    if step == "review":
        import ray

        ray.init(num_cpus=CPUS, include_dashboard=False)
    if storage.is_remote(folder):

        def before_send(**about: Any) -> None:
            requests.append(about["event_name"])
            time.sleep(latency_s)

        s3_client.client().meta.events.register("before-send.s3", before_send)
    parts = plan.load_plan(folder)
    requests.clear()
    began = time.perf_counter()
    STEPS[step](folder, catalog, parts)
    seconds = round(time.perf_counter() - began, 2)
    return {"s": seconds, **({"requests": len(requests)} if storage.is_remote(folder) else {})}


def measure(folder: str, steps: list[str], entries: list[FileInfo], latency_s: float) -> Any:
    """Print and return the figures of some steps."""
    parts = plan.load_plan(folder)
    row = {"pictures": len(entries), "parts": len(parts)}
    row["shards"] = sum(part.shards for part in parts)
    for step in steps:
        figures = in_fresh_process(run, step, folder, entries, latency_s)
        row |= {f"{step}_{name.removeprefix('run_')}": value for name, value in figures.items()}
    print(row, flush=True)
    return row


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--additions", type=int, default=max(MARKS))
    parser.add_argument("--pictures", type=int, default=64, help="images of each addition")
    parser.add_argument("--folder", help="parent of the temporary folder, or an empty one in S3")
    parser.add_argument("--latency-ms", type=float, default=0, help="added to each request to S3")
    flags = parser.parse_args()
    entries = draw_entries(flags.additions * flags.pictures)
    rng = np.random.default_rng(0)
    texts = [draw_text(rng) for _ in range(TEXTS)]
    rows, parts, latency_s = [], list[PlanPart](), flags.latency_ms / 1e3
    remote = storage.is_remote(flags.folder or "")
    all_steps = [step for step in STEPS if not (remote and step == "review")]
    with tempfile.TemporaryDirectory(dir=None if remote else flags.folder) as temporary:
        root = flags.folder if remote else temporary
        grown, at_once = storage.join(root, "grown", RUN), storage.join(root, "at-once", RUN)
        for number in range(1, flags.additions + 1):
            known = entries[: number * flags.pictures]
            add(grown, parts, known, texts)
            if number in (*MARKS, flags.additions):
                steps = all_steps if number == flags.additions else ["plan", "merge"]
                rows.append(measure(grown, steps, known, latency_s))
        add(at_once, [], entries, texts)
        rows.append(measure(at_once, all_steps, entries, latency_s))
    about = {"benchmark": "growth", "pictures": flags.pictures, "latency_ms": flags.latency_ms}
    print(json.dumps({**about, "rows": rows, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
