"""What a catalogue in S3 costs before its first pixel: seconds and requests of a listing, reads a
second.

    AWS_ENDPOINT_URL=... python benchmarks/s3.py s3://bucket/prefix [--keys 100064] [--reads 512]

Puts small objects named like Kaggle's pictures under the prefix, where they are not there yet, and
lists them as a job does. Then pictures' sizes of random bytes are read in one process, by turns:
one after the other and several at a time, as `storage.read_each` does (boto3, each body compared
with its ETag), by pyarrow's file system with as many threads, and by pyarrow with the same
comparison. Each way's best round counts. The last line is one JSON object.
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
from carvana_ray.data import layout as carvana
from carvana_ray.storage import base as store
from carvana_ray.storage import s3_client

PICTURE_BYTES = 100_000


def names(count: int) -> list[str]:
    """Return names like Kaggle's."""
    return [
        f"{hashlib.sha256(str(car).encode()).hexdigest()[:12]}_{view + 1:02d}.jpg"
        for car, view in (divmod(number, carvana.VIEWS) for number in range(count))
    ]


def put(uris: Sequence[str], size: int) -> None:
    """Put objects of random bytes that are not there yet."""

    def one(uri: str) -> None:
        storage.write_atomic(uri, os.urandom(size), replace=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, uris))


def put_all(uris: Sequence[str], size: int) -> None:
    """Put objects from several processes."""
    share = 2_000
    with ProcessPoolExecutor() as processes:
        parts = [uris[at : at + share] for at in range(0, len(uris), share)]
        for done, _ in enumerate(processes.map(put, parts, [size] * len(parts)), 1):
            print(f"put {min(done * share, len(uris))} of {len(uris)}", flush=True)


def list_all(folder: str, keys: int) -> dict[str, float]:
    """Return seconds and requests of one listing."""
    requests: list[str] = []

    def count(**about: Any) -> None:
        requests.append(about["event_name"])

    s3_client.client().meta.events.register("before-send.s3", count)
    began = time.perf_counter()
    found = storage.list_files(folder, carvana.IMAGE_SUFFIXES)
    seconds = time.perf_counter() - began
    s3_client.client().meta.events.unregister("before-send.s3", count)
    if len(found) != keys:
        raise RuntimeError(f"{len(found)} of {keys} keys were listed")
    return {"list_seconds": round(seconds, 2), "list_requests": len(requests)}


def one_by_one(uris: Sequence[str]) -> None:
    """Read as a process that does nothing else meanwhile."""
    for uri in uris:
        storage.read(uri)


def ours(uris: Sequence[str]) -> None:
    """Read as the program does."""
    for data in storage.read_many(uris):
        if isinstance(data, Exception):
            raise data


def arrow(uris: Sequence[str], check: bool) -> None:
    """Read through pyarrow, which compares nothing; with `check`, with the ETag of a listing."""
    files = pyarrow.fs.S3FileSystem(
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
        region=s3_client.client().meta.region_name,
    )
    etags = {}
    if check:
        folder = storage.parent(uris[0])
        etags = {storage.join(folder, one.name): one.version for one in storage.list_files(folder)}

    def one(uri: str) -> None:
        with files.open_input_file(uri.removeprefix(store.S3_SCHEME)) as file:
            data = file.read()
        if check and hashlib.md5(data).hexdigest() != etags[uri]:
            raise RuntimeError(f"{uri}: not what its ETag says")

    with ThreadPoolExecutor(storage.READ_AHEAD) as pool:
        list(pool.map(one, uris))


WAYS: dict[str, Callable[[Sequence[str]], None]] = {
    "boto3, one by one": one_by_one,
    f"boto3, {storage.READ_AHEAD} at a time, checked (ours)": ours,
    f"pyarrow, {storage.READ_AHEAD} at a time, unchecked": lambda uris: arrow(uris, check=False),
    f"pyarrow, {storage.READ_AHEAD} at a time, checked": lambda uris: arrow(uris, check=True),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri", help="s3://bucket/prefix to put objects under")
    parser.add_argument("--keys", type=int, default=100_064)
    parser.add_argument("--reads", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    root = storage.resolve(flags.uri)
    keys, pictures = storage.join(root, "keys"), storage.join(root, "pictures")
    result: dict[str, Any] = {}
    for folder, count, size in ((keys, flags.keys, 1), (pictures, flags.reads, PICTURE_BYTES)):
        there = (
            {one.name for one in storage.list_files(folder)} if storage.exists(folder) else set()
        )
        put_all([storage.join(folder, one) for one in names(count) if one not in there], size)
    for _ in range(flags.rounds):
        found = list_all(keys, flags.keys)
        result = min(result or found, found, key=lambda one: one["list_seconds"])
    uris = [storage.join(pictures, one) for one in names(flags.reads)]
    best: dict[str, tuple[float, float]] = {}
    for _ in range(flags.rounds):
        for way, work in WAYS.items():
            began, cpu = time.perf_counter(), time.process_time()
            work(uris)
            took = time.perf_counter() - began, time.process_time() - cpu
            best[way] = min(best.get(way, took), took)
    print(f"{flags.keys} keys listed: {result}")
    for way, (seconds, cpu) in best.items():
        each = 1e3 * cpu / flags.reads
        print(f"{way:40} {flags.reads / seconds:8.0f} reads/s, {each:.2f} ms of CPU each")
    about = {"benchmark": "s3", "keys": flags.keys, "bytes": PICTURE_BYTES}
    reads = {way: round(flags.reads / seconds) for way, (seconds, _) in best.items()}
    versions = {"boto3": boto3.__version__, "pyarrow": pyarrow.__version__}
    print(json.dumps({**about, **result, **reads, **versions, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
