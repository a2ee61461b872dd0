"""How fast a picture becomes gray levels: in one process, and through Ray Data on all cores.

    python benchmarks/decode.py --data FOLDER [--limit 96] [--downscale 4] [--chain 400]

One process, bytes in memory: a full decode, resize and mean; the fastest other binding of
libjpeg-turbo that is installed (simplejpeg); `load_gray`. All cores, files: a bare pool of
processes; Ray Data's chain as prediction has it, once its processes run; and, command to last
picture, `ray.data.read_images` with a resize beside that chain. Ways take turns, round by round, on
the same pictures; each way's best round counts, since a shared machine only ever adds time. The
last line is one JSON object.
"""

import argparse
import functools
import io
import itertools
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import ray
import ray.data
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images
from carvana_ray.stages import dataset

try:
    import simplejpeg
except ImportError:  # not among the requirements: pip install simplejpeg
    simplejpeg = None

Gray = NDArray[np.uint8]
BLOCK = 32  # pictures of the chain's blocks


def full_decode(data: bytes, downscale: int) -> Gray:
    """Return what most would write: decode all, average blocks in colour, average the colours."""
    return _small_mean(Image.open(io.BytesIO(data)).convert("RGB"), downscale)


def _small_mean(image: Image.Image, downscale: int) -> Gray:
    size = (-(-image.width // downscale), -(-image.height // downscale))
    small = np.asarray(image.resize(size, Image.Resampling.BOX))
    return small.mean(axis=-1).round().astype(np.uint8)


def other_binding(data: bytes, downscale: int) -> Gray:
    """Return the same by simplejpeg, scaled while it decodes; the mean by Pillow, as in ours."""
    height, width = images.grid(1280, 1918, downscale)
    rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    return np.asarray(Image.fromarray(rgb).convert("L", (1 / 3, 1 / 3, 1 / 3, 0)))


def best_of(
    rounds: int,
    ways: dict[str, Callable[[], object]],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the seconds of each way's best round; the ways take turns.

    Args:
        rounds: how many.
        ways: by name.
        clock: `time.process_time` for what one process does alone.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = clock()
            way()
            times[name].append(clock() - began)
    return {name: min(found) for name, found in times.items()}


def _of_file(path: str, downscale: int) -> int:
    return len(images.load_gray(Path(path).read_bytes(), downscale))


def chain(paths: list[str], downscale: int) -> ray.data.Dataset:
    """Return the chain of prediction up to the pictures, not begun yet."""
    names = [Path(path).name for path in paths]
    rows = [dataset.pictures_row("", names[at : at + BLOCK]) for at in range(0, len(names), BLOCK)]
    load = functools.partial(
        dataset.load_pictures,
        folder=str(Path(paths[0]).parent),
        downscale=downscale,
        size=None,
        blank=(1280, 1918),
    )
    return dataset.from_blocks(rows).map_batches(load, batch_size=None, num_cpus=1)


def consume(pictures: ray.data.Dataset) -> int:
    """Run a data set to its end, by reference: nothing is copied to this process."""
    return sum(bundle.num_rows() or 0 for bundle in pictures.iter_internal_ref_bundles())


def read_images(paths: list[str], downscale: int) -> int:
    """Return the pictures that `ray.data.read_images` and a resize have made gray."""

    def resize(batch: dict[str, NDArray]) -> dict[str, NDArray]:
        small = [_small_mean(Image.fromarray(one), downscale) for one in batch["image"]]
        return {"gray": np.stack(small)}

    read = ray.data.read_images(paths, mode="RGB")
    return consume(read.map_batches(resize, batch_size=16))


def on_all_cores(paths: list[str], downscale: int, rounds: int) -> dict[str, float]:
    """Return pictures a second: of the pool and the chain, and end to end beside read_images."""
    cores = os.cpu_count() or 1
    many = list(itertools.islice(itertools.cycle(paths), max(len(paths), 200 * cores)))
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        of_file = functools.partial(_of_file, downscale=downscale)
        pool.map(of_file, many[: 4 * cores], chunksize=1)
        ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        consume(chain(many[: BLOCK * cores], downscale))  # starts the processes
        steady = best_of(
            rounds,
            {
                "pool": lambda: pool.map(of_file, many, chunksize=BLOCK),
                "chain": lambda: consume(chain(many, downscale)),
            },
        )
        whole = best_of(
            1,
            {
                "ours": lambda: consume(chain(paths, downscale)),
                "read_images": lambda: read_images(paths, downscale),
            },
        )
        ray.shutdown()
    rates = {name: len(many) / seconds for name, seconds in steady.items()}
    return rates | {name: len(paths) / seconds for name, seconds in whole.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with train/")
    parser.add_argument("--limit", type=int, default=96, help="pictures, in one process")
    parser.add_argument("--downscale", type=int, default=4, choices=images.DOWNSCALES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chain", type=int, default=400, help="pictures on all cores; 0: none")
    flags = parser.parse_args()
    every = sorted(Path(flags.data, "train").resolve().glob("*.jpg"))
    paths = every[:: max(1, len(every) // flags.limit)][: flags.limit]  # over all cars
    pictures = [path.read_bytes() for path in paths]
    ways = {"full decode": full_decode, "load_gray": images.load_gray}
    if simplejpeg:
        ways["simplejpeg"] = other_binding
    runs = {
        name: lambda way=way: [way(data, flags.downscale) for data in pictures]
        for name, way in ways.items()
    }
    seconds = best_of(flags.rounds, runs, time.process_time)
    best = {name: one / len(pictures) * 1e3 for name, one in seconds.items()}
    apart = {}
    for name, way in ways.items():
        off = [
            way(d, flags.downscale) * 1.0 - full_decode(d, flags.downscale) for d in pictures[:16]
        ]
        apart[name] = float(np.abs(off).mean())
    print(f"{len(pictures)} pictures of {np.mean([len(p) for p in pictures]) / 1e3:.0f} kB")
    for name, value in best.items():
        print(f"{name:12} {value:7.2f} ms a picture, {apart[name]:.2f} levels from the first")
    found = {
        "full_ms": best["full decode"],
        "load_gray_ms": best["load_gray"],
        "ratio": best["full decode"] / best["load_gray"],
        "difference_levels": apart["load_gray"],
    }
    if simplejpeg:
        found["to_simplejpeg"] = best["load_gray"] / best["simplejpeg"]
    if flags.chain:
        few = [str(path) for path in every[: flags.chain]]
        rates = on_all_cores(few, flags.downscale, flags.rounds)
        for name, value in rates.items():
            print(f"{name:12} {value:8.1f} pictures/s on {os.cpu_count()} cores")
        found |= {f"{name}_per_s": value for name, value in rates.items()}
        found["chain_to_pool"] = rates["chain"] / rates["pool"]
        found["ours_to_read_images"] = rates["ours"] / rates["read_images"]
    print(
        json.dumps(
            {
                "benchmark": "decode",
                "pictures": len(pictures),
                "downscale": flags.downscale,
                **{name: round(value, 3) for name, value in found.items()},
                "pillow": PIL.__version__,
                "ray": ray.__version__,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
