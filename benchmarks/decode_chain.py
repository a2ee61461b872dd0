"""The part of `decode.py` on all cores: image files, decoded by a pool, by this project's chain and
by Ray Data's own reader.

    pool         a multiprocessing pool: open, read, `load_gray`, no result sent back; no Ray
    handed       the same pool, with the images sent back to the caller
    chain        the first map of prediction, in blocks of a shard, results by reference
    ours         the same for few images, from the call to the last block, in prediction's blocks
    read_images  `ray.data.read_images` and a resize in `map_batches`, for the same few images

The pools have a process per core. Ray has one logical CPU more, as in a local session of the jobs,
and as many readers: Ray Data looks for finished tasks every 0.1 s, and a core would be idle so
long. pool, handed and chain are compared by their steady rate: without the first and the last
blocks. The start-up of Ray and of its processes is reported separately.
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

from carvana_ray import images, storage
from carvana_ray.data import layout
from carvana_ray.stages import session
from carvana_ray.stages.ingest.datasets import from_blocks
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.submission import plan

BLOCKS_PER_PROCESS = 12  # for a steady rate
NICE = 15  # of Ray's workers: the pool must not win over other work on the machine by priority


def small_mean(image: Image.Image, downscale: int) -> NDArray[np.uint8]:
    """Return an RGB image averaged over blocks, then over channels."""
    size = (-(-image.width // downscale), -(-image.height // downscale))
    small = np.asarray(image.resize(size, Image.Resampling.BOX))
    return small.mean(axis=-1).round().astype(np.uint8)


def _decode_and_drop(paths: list[str], downscale: int) -> int:
    for path in paths:
        images.load_gray(Path(path).read_bytes(), downscale)
    return len(paths)


def _decode(paths: list[str], downscale: int) -> NDArray[np.uint8]:
    return np.stack([images.load_gray(Path(path).read_bytes(), downscale) for path in paths])


def by_pool(pool: Pool, paths: list[str], downscale: int, block: int) -> Iterator[int]:
    """Yield the number of images of each block when it is done."""
    work = functools.partial(_decode_and_drop, downscale=downscale)
    return pool.imap_unordered(work, _blocks(paths, block))


def by_pool_handed(pool: Pool, paths: list[str], downscale: int, block: int) -> Iterator[int]:
    """Yield as `by_pool`; the images come back through a pipe."""
    work = functools.partial(_decode, downscale=downscale)
    return map(len, pool.imap_unordered(work, _blocks(paths, block)))


def _blocks(paths: list[str], block: int) -> list[list[str]]:
    return [paths[start : start + block] for start in range(0, len(paths), block)]


def by_chain(paths: list[str], downscale: int, block: int) -> Iterator[int]:
    """Yield as `by_pool`; the images stay in Ray's object store."""
    folder, size = str(Path(paths[0]).parent), (layout.HEIGHT, layout.WIDTH)
    listed = {entry.name: entry for entry in storage.list_files(folder)}
    rows = [
        block_row("", [listed[Path(path).name] for path in block_paths])
        for block_paths in _blocks(paths, block)
    ]
    options = ReadOptions(folder, downscale, None, trained_size=size)
    read = functools.partial(read_images, options=options)
    return _counts(from_blocks(rows).map_batches(read, batch_size=None, num_cpus=1))


def by_read_images(paths: list[str], downscale: int) -> Iterator[int]:
    """Yield as `by_pool`, for the obvious program."""

    def resize(batch: dict[str, NDArray]) -> dict[str, NDArray]:
        small = [small_mean(Image.fromarray(image), downscale) for image in batch["image"]]
        return {"image": np.stack(small)}

    return _counts(ray.data.read_images(paths, mode="RGB").map_batches(resize, batch_size=16))


def _counts(dataset: ray.data.Dataset) -> Iterator[int]:
    return (bundle.num_rows() or 0 for bundle in dataset.iter_internal_ref_bundles())


def steady(counts: Iterator[int], processes: int) -> float:
    """Return images/s without the first two and the last two blocks of each process."""
    done, times = [], []
    for count in counts:
        done.append(count)
        times.append(time.perf_counter())
    first, last = 2 * processes, len(times) - 1 - 2 * processes
    return sum(done[first + 1 : last + 1]) / (times[last] - times[first])


def whole(counts: Iterator[int]) -> float:
    """Return images/s from the call to the last image."""
    began = time.perf_counter()
    return sum(counts) / (time.perf_counter() - began)


def best_of(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return the best rate of each way. The ways take turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    return {name: max(values) for name, values in rates.items()}


def measure(
    paths: list[str], few: int, downscale: int, processes: int, rounds: int
) -> dict[str, float | str | None]:
    """Print a table and return its figures.

    Args:
        paths: images of one folder.
        few: number of images from the call to the last block.
        downscale: see `images.load_gray`.
        processes: of the pool; Ray has one CPU more.
        rounds: the best of them counts.
    """
    first, block = paths[:few], plan.shard_size(few)
    with multiprocessing.get_context("fork").Pool(processes, os.nice, (NICE,)) as pool:
        # Before Ray has threads: a fork copies none of them.
        whole(by_pool(pool, _repeat(paths, block * processes), downscale, block))
        began = time.perf_counter()
        with session.session(processes + 1):
            up = time.perf_counter()
            whole(by_chain(first[: block * processes], downscale, block))
            started = time.perf_counter()
            whole(by_read_images(first[: 16 * processes], downscale))
            rates = _steady_rates(pool, paths, downscale, processes, rounds)
            ways = {
                "ours": lambda: whole(by_chain(first, downscale, block)),
                "read_images": lambda: whole(by_read_images(first, downscale)),
            }
            rates |= best_of(rounds, ways)
    print(f"\n{processes} processes     images/s   (the last two: {few} images from start to end)")
    for name, rate in rates.items():
        print(f"{name:12} {rate:12.1f}")
    print(f"Ray was up after {up - began:.1f} s, its processes {started - up:.1f} s later")
    return {
        **{f"{name}_per_s": rate for name, rate in rates.items()},
        "chain_to_pool": rates["chain"] / rates["pool"],
        "chain_to_handed": rates["chain"] / rates["handed"],
        "ours_to_read_images": rates["ours"] / rates["read_images"],
        "ray_s": up - began,
        "processes_s": started - up,
    }


def _repeat(paths: list[str], count: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(paths), count))


def _steady_rates(
    pool: Pool, paths: list[str], downscale: int, processes: int, rounds: int
) -> dict[str, float]:
    block = plan.SHARD_SIZE
    many = _repeat(paths, BLOCKS_PER_PROCESS * processes * block)
    ways = {
        "pool": lambda: steady(by_pool(pool, many, downscale, block), processes),
        "handed": lambda: steady(by_pool_handed(pool, many, downscale, block), processes),
        "chain": lambda: steady(by_chain(many, downscale, block), processes),
    }
    return best_of(rounds, ways)
