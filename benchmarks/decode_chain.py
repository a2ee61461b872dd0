"""The part of `decode.py` on all cores: pictures as files, by a bare pool, by Ray Data, by its own
reader of images.

    pool         processes of multiprocessing: open, read, `load_gray`, nothing sent back; no Ray
    handed       the same, but whoever asked gets the pictures, as from the chain
    chain        the chain of prediction up to the pictures, in blocks of a shard, by reference
    ours         the same for few pictures, from the call to the last block, in blocks as prediction
                 cuts so few
    read_images  `ray.data.read_images` and a resize in `map_batches`, likewise

The pools have a process a core. Ray has a logical CPU more than that, as in a local session of the
jobs, and so many readers: Ray Data looks for finished tasks every 0.1 s, and a core would idle so
long. The three are compared by their steady rate: without the first and the last blocks, so that as
many are under way when the clock starts as when it stops. The start of Ray and of its processes is
told apart.
"""

import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images
from carvana_ray.data import layout as carvana
from carvana_ray.stages import session
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.submission import plan

BLOCKS = 12  # a process, for a steady rate
NICE = 15  # Ray's own for its workers: beside other work on a machine the pool must not win by this


def small_mean(image: Image.Image, downscale: int) -> NDArray[np.uint8]:
    """Return an RGB image averaged over blocks, then over colours."""
    size = (-(-image.width // downscale), -(-image.height // downscale))
    small = np.asarray(image.resize(size, Image.Resampling.BOX))
    return small.mean(axis=-1).round().astype(np.uint8)


def _decoded(paths: list[str], downscale: int) -> int:
    for path in paths:
        images.load_gray(Path(path).read_bytes(), downscale)
    return len(paths)


def _handed(paths: list[str], downscale: int) -> NDArray[np.uint8]:
    return np.stack([images.load_gray(Path(path).read_bytes(), downscale) for path in paths])


def by_pool(pool: Pool, paths: list[str], downscale: int, block: int) -> Iterator[int]:
    """Yield how many pictures each block had, as they are done."""
    return pool.imap_unordered(
        functools.partial(_decoded, downscale=downscale), _blocks(paths, block)
    )


def by_pool_handed(pool: Pool, paths: list[str], downscale: int, block: int) -> Iterator[int]:
    """Yield the same; the pictures come through a pipe, as a pool's results do."""
    load = functools.partial(_handed, downscale=downscale)
    return map(len, pool.imap_unordered(load, _blocks(paths, block)))


def _blocks(paths: list[str], block: int) -> list[list[str]]:
    return [paths[at : at + block] for at in range(0, len(paths), block)]


def by_chain(paths: list[str], downscale: int, block: int) -> Iterator[int]:
    """Yield the same, by reference: nothing is copied to this process."""
    names = [Path(path).name for path in paths]
    rows = [reading.block_row("", names[at : at + block]) for at in range(0, len(names), block)]
    load = functools.partial(
        reading.read_images,
        options=reading.ReadOptions(
            str(Path(paths[0]).parent), downscale, None, (carvana.HEIGHT, carvana.WIDTH)
        ),
    )
    return _counts(dataset.from_blocks(rows).map_batches(load, batch_size=None, num_cpus=1))


def by_read_images(paths: list[str], downscale: int) -> Iterator[int]:
    """Yield the same for what most would write."""

    def resize(batch: dict[str, NDArray]) -> dict[str, NDArray]:
        small = [small_mean(Image.fromarray(one), downscale) for one in batch["image"]]
        return {"gray": np.stack(small)}

    return _counts(ray.data.read_images(paths, mode="RGB").map_batches(resize, batch_size=16))


def _counts(pictures: ray.data.Dataset) -> Iterator[int]:
    return (bundle.num_rows() or 0 for bundle in pictures.iter_internal_ref_bundles())


def steady(done: Iterator[int], processes: int) -> float:
    """Return pictures a second without two blocks a process at the start and as many at the end."""
    counts, times = [], []
    for count in done:
        counts.append(count)
        times.append(time.perf_counter())
    first, last = 2 * processes, len(times) - 1 - 2 * processes
    return sum(counts[first + 1 : last + 1]) / (times[last] - times[first])


def whole(done: Iterator[int]) -> float:
    """Return pictures a second, from the call to the last one."""
    began = time.perf_counter()
    return sum(done) / (time.perf_counter() - began)


def best_of(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return each way's best rate; the ways take turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    return {name: max(found) for name, found in rates.items()}


def measure(
    paths: list[str], few: int, downscale: int, processes: int, rounds: int
) -> dict[str, float | str | None]:
    """Print a table and return its figures.

    Args:
        paths: of pictures, of one folder.
        few: of them, end to end.
        downscale: see `images.load_gray`.
        processes: of the pool, and CPUs of Ray.
        rounds: of which the best counts.
    """
    count = BLOCKS * processes * plan.SHARD_SIZE
    many = list(itertools.islice(itertools.cycle(paths), count))
    first = paths[:few]
    block = plan.shard_size(len(first))
    fork = multiprocessing.get_context("fork")
    with fork.Pool(processes, os.nice, (NICE,)) as pool:  # before Ray has threads
        whole(by_pool(pool, many[: block * processes], downscale, block))
        began = time.perf_counter()
        with session.session(processes + 1):
            up = time.perf_counter()
            whole(by_chain(first[: block * processes], downscale, block))
            start = time.perf_counter()
            whole(by_read_images(first[: 16 * processes], downscale))
            large = plan.SHARD_SIZE
            rates = best_of(
                rounds,
                {
                    "pool": lambda: steady(by_pool(pool, many, downscale, large), processes),
                    "handed": lambda: steady(
                        by_pool_handed(pool, many, downscale, large), processes
                    ),
                    "chain": lambda: steady(by_chain(many, downscale, large), processes),
                },
            )
            rates |= best_of(
                rounds,
                {
                    "ours": lambda: whole(by_chain(first, downscale, block)),
                    "read_images": lambda: whole(by_read_images(first, downscale)),
                },
            )
    print(f"\n{processes} processes   pictures/s   ({len(many)} pictures steady, {few} end to end)")
    for name, rate in rates.items():
        print(f"{name:12} {rate:12.1f}")
    print(f"Ray was up after {up - began:.1f} s, its processes {start - up:.1f} s later")
    return {
        **{f"{name}_per_s": rate for name, rate in rates.items()},
        "chain_to_pool": rates["chain"] / rates["pool"],
        "chain_to_handed": rates["chain"] / rates["handed"],
        "ours_to_read_images": rates["ours"] / rates["read_images"],
        "ray_s": up - began,
        "processes_s": start - up,
    }
