"""Measure how fast an image is decoded to gray levels, in one process and through Ray Data.

    python benchmarks/decode.py --data FOLDER [--limit 96] [--processes N] [--chain 400]

One process, files in memory, CPU time:

    full decode   the obvious way: all pixels by Pillow, a resize, the mean of the channels
    simplejpeg    a binding of libjpeg-turbo with scaled decoding, if it is installed
    PyTurboJPEG   another one; it finds libturbojpeg by itself, or by the variable TURBOJPEG
    load_gray     this project

The decoders take turns, and the best round of each image counts: other work on a shared machine
only adds time. For all cores, from files, see `decode_chain.py`. The last line is one JSON object.
"""

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import decode_chain
import numpy as np
import PIL
import ray
from numpy.typing import NDArray
from PIL import Image, features

from carvana_ray import images
from carvana_ray.data import layout

Gray = NDArray[np.uint8]
Decoder = Callable[[bytes, int], Gray]
MEAN = (1 / 3, 1 / 3, 1 / 3, 0)


def full_decode(data: bytes, downscale: int) -> Gray:
    """Decode all pixels, average blocks, then average the channels."""
    return decode_chain.small_mean(Image.open(io.BytesIO(data)).convert("RGB"), downscale)


def bindings() -> dict[str, Decoder]:
    """Return the installed bindings; Pillow averages their channels, as in `images.load_gray`.

    The bindings are not among the requirements: pip install simplejpeg PyTurboJPEG. imagecodecs,
    OpenCV and torchvision cannot decode at a quarter of the size, or not in color.
    """
    decoders: dict[str, Decoder] = {}
    try:
        import simplejpeg

        def by_simplejpeg(data: bytes, downscale: int) -> Gray:
            height, width = images.grid_size(layout.HEIGHT, layout.WIDTH, downscale)
            rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
            return np.asarray(Image.fromarray(rgb).convert("L", MEAN))

        decoders["simplejpeg"] = by_simplejpeg
    except ImportError:
        pass
    try:
        import turbojpeg

        decoder = turbojpeg.TurboJPEG(os.environ.get("TURBOJPEG"))

        def by_turbojpeg(data: bytes, downscale: int) -> Gray:
            rgb = decoder.decode(data, turbojpeg.TJPF_RGB, (1, downscale))
            return np.asarray(Image.fromarray(rgb).convert("L", MEAN))

        decoders["PyTurboJPEG"] = by_turbojpeg
    except (ImportError, RuntimeError, OSError):  # libturbojpeg is missing
        pass
    return decoders


def milliseconds(
    decoders: dict[str, Decoder], files: list[bytes], downscale: int, rounds: int
) -> dict[str, float]:
    """Return the CPU milliseconds per image of each decoder, from the best round of each image."""
    best = np.full((len(decoders), len(files)), np.inf)
    for _ in range(rounds):
        for row, decode in enumerate(decoders.values()):
            for column, data in enumerate(files):
                began = time.thread_time()
                decode(data, downscale)
                best[row, column] = min(best[row, column], time.thread_time() - began)
    return dict(zip(decoders, (best.mean(axis=1) * 1e3).tolist(), strict=True))


def one_process(files: list[bytes], downscale: int, rounds: int) -> dict[str, float | str | None]:
    """Print a table of the decoders and return its figures."""
    installed = bindings()
    decoders = {"full decode": full_decode, **installed, "load_gray": images.load_gray}
    best = milliseconds(decoders, files, downscale, rounds)
    compared = files[:16]
    full = [full_decode(data, downscale) * 1.0 for data in compared]
    ours = [images.load_gray(data, downscale) * 1.0 for data in compared]
    print(f"\n{'one process':12} ms an image   levels from full decode (mean), from ours (max)")
    off, same = {}, {}
    for name, decode in decoders.items():
        grays = [decode(data, downscale) for data in compared]
        off[name] = float(np.mean([np.abs(a - b) for a, b in zip(grays, full, strict=True)]))
        same[name] = float(np.max([np.abs(a - b) for a, b in zip(grays, ours, strict=True)]))
        print(f"{name:12} {best[name]:11.2f} {off[name]:26.2f} {same[name]:19.0f}")
    figures: dict[str, float | str | None] = {
        "full_ms": best["full decode"],
        "load_gray_ms": best["load_gray"],
        "ratio": best["full decode"] / best["load_gray"],
        "difference_levels": off["load_gray"],
        "fastest_binding": None,
    }
    others = [name for name in installed if same[name] <= 1]
    if not others:
        print("no other binding is installed: pip install simplejpeg PyTurboJPEG")
        return figures
    fastest = min(others, key=best.__getitem__)
    figures |= {f"to_{name.lower()}": best["load_gray"] / best[name] for name in others}
    return figures | {
        "fastest_binding": fastest,
        "to_fastest_binding": best["load_gray"] / best[fastest],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with train/")
    parser.add_argument("--limit", type=int, default=96, help="images, in one process")
    parser.add_argument("--downscale", type=int, default=4, choices=images.DOWNSCALES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--chain", type=int, default=400, help="images end to end; 0: skip")
    flags = parser.parse_args()
    paths = sorted(Path(flags.data, "train").resolve().glob("*.jpg"))
    if not paths:
        parser.error(f"--data {flags.data}: no train/*.jpg")
    spread = paths[:: max(1, len(paths) // flags.limit)][: flags.limit]  # over all cars
    files = [path.read_bytes() for path in spread]
    print(f"{len(files)} images of {np.mean([len(data) for data in files]) / 1e3:.0f} kB")
    figures = one_process(files, flags.downscale, flags.rounds)
    if flags.chain:
        figures |= decode_chain.measure(
            [str(path) for path in paths],
            flags.chain,
            flags.downscale,
            flags.processes,
            flags.rounds,
        )
    result = {
        "benchmark": "decode",
        "pictures": len(files),
        "downscale": flags.downscale,
        "processes": flags.processes,
        **{
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in figures.items()
        },
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "ray": ray.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
