"""How fast a picture becomes gray levels: `load_gray` beside a full decode, in one process.

    python benchmarks/decode.py --data FOLDER [--limit 96] [--downscale 4] [--rounds 3]

Bytes are read beforehand, so that the disk does not count. Both ways take turns, round by round, on
the same pictures; each way's best round counts, since a shared machine only ever adds time. The
last line is one JSON object.
"""

import argparse
import io
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images

Gray = NDArray[np.uint8]


def full_decode(data: bytes, downscale: int) -> Gray:
    """Return what most would write: decode all, average blocks in colour, average the colours."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = (-(-image.width // downscale), -(-image.height // downscale))
    small = np.asarray(image.resize(size, Image.Resampling.BOX))
    return small.mean(axis=-1).round().astype(np.uint8)


def seconds(decode: Callable[[bytes, int], Gray], pictures: list[bytes], downscale: int) -> float:
    """Return the seconds that all pictures take."""
    began = time.perf_counter()
    for data in pictures:
        decode(data, downscale)
    return time.perf_counter() - began


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with train/")
    parser.add_argument("--limit", type=int, default=96, help="pictures")
    parser.add_argument("--downscale", type=int, default=4, choices=images.DOWNSCALES)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    paths = sorted(Path(flags.data, "train").glob("*.jpg"))
    paths = paths[:: max(1, len(paths) // flags.limit)][: flags.limit]  # over all cars
    pictures = [path.read_bytes() for path in paths]
    ways: dict[str, Callable[[bytes, int], Gray]] = {
        "full decode": full_decode,
        "load_gray": images.load_gray,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(flags.rounds):
        for name, decode in ways.items():
            times[name].append(seconds(decode, pictures, flags.downscale))
    best = {name: min(found) / len(pictures) * 1e3 for name, found in times.items()}
    apart = np.mean(
        [
            np.abs(
                full_decode(data, flags.downscale) - 1.0 * images.load_gray(data, flags.downscale)
            )
            for data in pictures[:16]
        ]
    )
    print(f"{len(pictures)} pictures of {np.mean([len(p) for p in pictures]) / 1e3:.0f} kB")
    for name, value in best.items():
        print(f"{name:12} {value:7.2f} ms a picture")
    ratio = best["full decode"] / best["load_gray"]
    print(f"ratio {ratio:.1f}; mean difference {apart:.2f} gray levels")
    print(
        json.dumps(
            {
                "benchmark": "decode",
                "pictures": len(pictures),
                "downscale": flags.downscale,
                "full_ms": round(best["full decode"], 3),
                "load_gray_ms": round(best["load_gray"], 3),
                "ratio": round(ratio, 2),
                "difference_levels": round(float(apart), 3),
                "pillow": PIL.__version__,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
