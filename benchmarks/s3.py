"""Measure a catalog in S3: seconds and requests of a listing, reads per second.

    AWS_ENDPOINT_URL=... python benchmarks/s3.py s3://bucket/prefix [--keys 100064] [--reads 512]

Writes missing small objects with names like Kaggle's images under the prefix, and lists them as a
job does. Then reads objects of the size of an image in one process, in turns: one by one; several
at a time, as `storage.read_many` does (boto3, each body compared with its ETag); by pyarrow's file
system with as many threads; and by pyarrow with the same comparison. The best round of each counts.
The last line is one JSON object.
"""

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import boto3
import pyarrow
import pyarrow.fs

from carvana_ray import storage
from carvana_ray.data import layout
from carvana_ray.storage import base, s3_client

IMAGE_BYTES = 100_000


def names(count: int) -> list[str]:
    """Return names like Kaggle's."""
    return [
        f"{hashlib.sha256(str(car).encode()).hexdigest()[:12]}_{view + 1:02d}.jpg"
        for car, view in (divmod(number, layout.VIEWS) for number in range(count))
    ]


def put(uris: Sequence[str], size: int) -> None:
    """Write objects of random bytes."""

    def write(uri: str) -> None:
        storage.write_atomic(uri, os.urandom(size), replace=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, uris))


def put_all(uris: Sequence[str], size: int) -> None:
    """Write objects from several processes."""
    chunk = 2_000
    with ProcessPoolExecutor() as processes:
        chunks = [uris[start : start + chunk] for start in range(0, len(uris), chunk)]
        for done, _ in enumerate(processes.map(put, chunks, [size] * len(chunks)), 1):
            print(f"put {min(done * chunk, len(uris))} of {len(uris)}", flush=True)


def put_missing(folder: str, count: int, size: int) -> None:
    """Write the objects of a folder that do not exist yet."""
    existing = set()
    if storage.exists(folder):
        existing = {entry.name for entry in storage.list_files(folder)}
    put_all([storage.join(folder, name) for name in names(count) if name not in existing], size)


def list_all(folder: str, keys: int) -> dict[str, float]:
    """Return seconds and requests of one listing."""
    requests: list[str] = []

    def count(**about: Any) -> None:
        requests.append(about["event_name"])

    s3_client.client().meta.events.register("before-send.s3", count)
    began = time.perf_counter()
    entries = storage.list_files(folder, layout.IMAGE_SUFFIXES)
    seconds = time.perf_counter() - began
    s3_client.client().meta.events.unregister("before-send.s3", count)
    if len(entries) != keys:
        raise RuntimeError(f"{len(entries)} of {keys} keys were listed")
    return {"list_seconds": round(seconds, 2), "list_requests": len(requests)}


def one_by_one(uris: Sequence[str]) -> None:
    """Read objects one by one."""
    for uri in uris:
        storage.read(uri)


def ours(uris: Sequence[str]) -> None:
    """Read objects as this project does."""
    for data in storage.read_many(uris):
        if isinstance(data, Exception):
            raise data


def arrow(uris: Sequence[str], check: bool) -> None:
    """Read objects through pyarrow; with `check`, compare them with the ETags of a listing."""
    files = pyarrow.fs.S3FileSystem(
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
        region=s3_client.client().meta.region_name,
    )
    etags = {}
    if check:
        folder = storage.parent(uris[0])
        etags = {storage.join(folder, e.name): e.version for e in storage.list_files(folder)}

    def read(uri: str) -> None:
        with files.open_input_file(uri.removeprefix(base.S3_SCHEME)) as file:
            data = file.read()
        if check and hashlib.md5(data).hexdigest() != etags[uri]:
            raise RuntimeError(f"{uri}: the body does not match its ETag")

    with ThreadPoolExecutor(storage.READ_AHEAD) as pool:
        list(pool.map(read, uris))


WAYS: dict[str, Callable[[Sequence[str]], None]] = {
    "boto3, one by one": one_by_one,
    f"boto3, {storage.READ_AHEAD} at a time, checked (ours)": ours,
    f"pyarrow, {storage.READ_AHEAD} at a time, unchecked": lambda uris: arrow(uris, check=False),
    f"pyarrow, {storage.READ_AHEAD} at a time, checked": lambda uris: arrow(uris, check=True),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri", help="s3://bucket/prefix of the objects")
    parser.add_argument("--keys", type=int, default=100_064)
    parser.add_argument("--reads", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    root = storage.resolve(flags.uri)
    keys, images = storage.join(root, "keys"), storage.join(root, "pictures")
    put_missing(keys, flags.keys, 1)
    put_missing(images, flags.reads, IMAGE_BYTES)
    listings = [list_all(keys, flags.keys) for _ in range(flags.rounds)]
    listing = min(listings, key=lambda figures: figures["list_seconds"])
    uris = [storage.join(images, name) for name in names(flags.reads)]
    best: dict[str, tuple[float, float]] = {}
    for _ in range(flags.rounds):
        for way, work in WAYS.items():
            began, cpu = time.perf_counter(), time.process_time()
            work(uris)
            took = time.perf_counter() - began, time.process_time() - cpu
            best[way] = min(best.get(way, took), took)
    print(f"{flags.keys} keys listed: {listing}")
    for way, (seconds, cpu) in best.items():
        cpu_ms = 1e3 * cpu / flags.reads
        print(f"{way:40} {flags.reads / seconds:8.0f} reads/s, {cpu_ms:.2f} ms of CPU each")
    about = {"benchmark": "s3", "keys": flags.keys, "bytes": IMAGE_BYTES}
    reads = {way: round(flags.reads / seconds) for way, (seconds, _) in best.items()}
    versions = {"boto3": boto3.__version__, "pyarrow": pyarrow.__version__}
    versions["python"] = platform.python_version()
    print(json.dumps({**about, **listing, **reads, **versions}))


if __name__ == "__main__":
    main()
