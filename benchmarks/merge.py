"""Measure time and memory of merging shards into a submission and of validating a submission.

    python benchmarks/merge.py [--pictures 100064] [--parts 1] [--shuffled] [--packed] [--folder .]

Writes the shards of a full catalog to a temporary folder. The texts are as long as those of real
masks (9 kB, one or two runs a row); a few hundred of them serve all names. The reference is the
obvious program: it reads all shards into one table and writes all rows with `csv`, without hashes
and without validation. Each step runs in a fresh process, so that the peak of memory is its own.
Disk access is part of the time. Needs 2.5 GB of disk, 3.5 GB with --shuffled. The last line is one
JSON object.
"""

import argparse
import csv
import filecmp
import functools
import json
import multiprocessing
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carvana_ray import rle, storage
from carvana_ray.data import layout, quarantine
from carvana_ray.storage import FileInfo
from carvana_ray.submission import shards, writer
from carvana_ray.submission.plan import SHARD_SIZE, PlanPart
from carvana_ray.submission.validate import validate_file

TEXTS = 400  # distinct masks
RUN = "0123456789abcdef"


def draw_text(rng: np.random.Generator) -> str:
    """Return run-length text like that of a car: one run a row, two where the wheels are."""
    top, rows = int(rng.integers(250, 400)), int(rng.integers(530, 780))
    y = np.arange(top, top + rows)
    left = 480 + np.cumsum(rng.integers(-2, 3, rows)) + (top + rows - y) // 4
    right = 1450 + np.cumsum(rng.integers(-2, 3, rows)) - (top + rows - y) // 4
    line = y * layout.WIDTH
    wheels = y >= top + rows - rows // 7
    inner = np.where(wheels, line + left + 200, line + right)
    starts = np.concatenate([line + left, (line + right - 200)[wheels]])
    ends = np.concatenate([inner, (line + right)[wheels]])
    order = np.argsort(starts)
    return rle.format_runs(starts[order], ends[order])


def make_plan(images: int, parts: int) -> list[PlanPart]:
    """Return a plan of images with Kaggle's names, interleaved over `parts` parts."""
    names = [
        f"{car * 0x9E3779B97F4A7C15 % 2**48:012x}_{view:02d}.jpg"
        for car in range(-(-images // layout.VIEWS))
        for view in range(1, layout.VIEWS + 1)
    ]
    entries = [FileInfo(name, 500_000, "1") for name in sorted(names[:images])]
    return [
        PlanPart(number + 1, own, -(-len(own) // SHARD_SIZE))
        for number in range(parts)
        if (own := tuple(entries[number::parts]))
    ]


def write_shard(folder: str, part: PlanPart, shard: int, texts: list[str]) -> None:
    """Write one shard with these run-length texts."""
    count = len(texts)
    constant = {
        "height": layout.HEIGHT,
        "width": layout.WIDTH,
        "crc32": 0,
        "orientation": 1,
        "status": quarantine.OK,
        "rows": count,
    }
    rows = pa.table(
        {
            "img": [entry.name for entry in part.shard(shard)],
            "rle_mask": texts,
            "row": range(count),
            **{name: [value] * count for name, value in constant.items()},
        }
    )
    name = part.shard_name(shard)
    data = shards.serialize_shard(rows, shards.shard_key(RUN, part, shard))
    storage.write_atomic(storage.join(folder, name), data)


def make(folder: str, parts: list[PlanPart]) -> dict[str, Any]:
    """Write all shards."""
    rng = np.random.default_rng(0)
    texts = [draw_text(rng) for _ in range(TEXTS)]
    for part in parts:
        for shard in range(part.shards):
            drawn = rng.integers(0, TEXTS, len(part.shard(shard)))
            write_shard(folder, part, shard, [texts[number] for number in drawn])
    return {"text_kB": round(float(np.mean([len(text) for text in texts])) / 1e3, 2)}


def merge(folder: str, target: str, parts: list[PlanPart], order: list[str]) -> dict[str, Any]:
    """Merge and validate as prediction does; return the seconds of both."""
    cpu = time.process_time()
    keep = {entry for part in parts for entry in part.images}

    def walk() -> Iterator[tuple[str, str]]:
        read = functools.partial(shards.read_shard, folder)
        with writer.prefetch_shards(parts, read, keep) as ahead:
            for row in writer.iter_rows(parts, ahead, keep):
                yield row["img"], row["rle_mask"]

    packed = target.endswith(".gz")
    with storage.atomic_writer(target) as file:
        began = time.perf_counter()
        rows = writer.write_submission(file, walk(), order, packed, spool_folder=folder)
        written = time.perf_counter()
        pixels = layout.HEIGHT * layout.WIDTH
        faults = writer.validate_written(file, packed, order, lambda _: pixels)
        checked = time.perf_counter()
        size = file.seek(0, 2)
    if faults or rows != len(order):
        raise RuntimeError(f"{rows} rows of {len(order)}, faults: {faults[:3]}")
    return {
        "merge_s": round(written - began, 1),
        "check_written_s": round(checked - written, 1),
        "both_cpu_s": round(time.process_time() - cpu, 1),
        "csv_MB": round(size / 1e6, 1),
    }


def check(target: str, order: list[str]) -> dict[str, Any]:
    """Validate the file as ``jobs/check.py`` does; return the seconds."""
    began = time.perf_counter()
    pixels = layout.HEIGHT * layout.WIDTH
    rows, _, counts = validate_file(target, order, lambda _: pixels)
    if counts or rows != len(order):
        raise RuntimeError(f"{rows} rows of {len(order)}, faults: {counts}")
    return {"check_s": round(time.perf_counter() - began, 1)}


def reference(folder: str, target: str, order: list[str]) -> dict[str, Any]:
    """Merge as the obvious program does; return the seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    rows = pq.read_table(storage.join(folder, "shards"), columns=["img", "rle_mask"]).to_pylist()
    texts = {row["img"]: row["rle_mask"] for row in rows}
    with open(target, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(layout.CSV_HEADER)
        out.writerows((name, texts[name]) for name in order)
        file.flush()
        os.fsync(file.fileno())
    return {
        "reference_s": round(time.perf_counter() - began, 1),
        "reference_cpu_s": round(time.process_time() - cpu, 1),
    }


def in_fresh_process(step: Callable[..., dict[str, Any]], *args: object) -> dict[str, Any]:
    """Run a step in a fresh process; return its result and its peak of memory."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_with_peak, step, *args).result()


def _with_peak(step: Callable[..., dict[str, Any]], *args: object) -> dict[str, Any]:
    result = step(*args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux, bytes on macOS
    peak_mb = peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
    return {**result, f"{step.__name__}_peak_MB": round(peak_mb)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_064)
    parser.add_argument("--parts", type=int, default=1, help="parts of the plan")
    parser.add_argument("--shuffled", action="store_true", help="rows in random order")
    parser.add_argument("--packed", action="store_true", help="write a .csv.gz")
    parser.add_argument("--folder", help="parent of the temporary folder")
    flags = parser.parse_args()
    parts = make_plan(flags.pictures, flags.parts)
    order = sorted(entry.name for part in parts for entry in part.images)
    if flags.shuffled:
        random.Random(0).shuffle(order)
    with tempfile.TemporaryDirectory(dir=flags.folder) as root:
        folder = storage.join(root, RUN)
        target = storage.join(root, "submission.csv" + ".gz" * flags.packed)
        text_kb = in_fresh_process(make, folder, parts)["text_kB"]
        print(f"{flags.pictures} rows of {text_kb} kB, {sum(p.shards for p in parts)} shards")
        figures = in_fresh_process(merge, folder, target, parts, order)
        figures |= in_fresh_process(check, target, order)
        if not flags.packed:
            plain = storage.join(root, "reference.csv")
            figures |= in_fresh_process(reference, folder, plain, order)
            figures["same_bytes"] = filecmp.cmp(plain, target, shallow=False)
    for name, value in figures.items():
        print(f"{name:16} {value:8}")
    result = {
        "benchmark": "merge",
        "pictures": flags.pictures,
        "parts": flags.parts,
        "shuffled": flags.shuffled,
        "packed": flags.packed,
        "text_kB": text_kb,
        **figures,
        "pyarrow": pa.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
