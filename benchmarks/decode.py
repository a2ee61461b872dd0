"""How fast a picture becomes gray levels: in one process, and through Ray Data on all cores.

    python benchmarks/decode.py --data FOLDER [--limit 96] [--processes N] [--chain 400]

One process, bytes in memory, seconds of CPU:

    full decode   what most would write: all pixels by Pillow, a resize, the mean of the colours
    simplejpeg    another binding of libjpeg-turbo, scaled while it decodes, where it is installed
    PyTurboJPEG   another one; it finds libturbojpeg by itself, or where TURBOJPEG says
    load_gray     ours

These take turns, round by round, and the best round of each picture counts: a shared machine only
ever adds time. All cores, from files: see `decode_chain.py`. The last line is one JSON object.
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
from carvana_ray.data import layout as carvana

Gray = NDArray[np.uint8]
Way = Callable[[bytes, int], Gray]
MEAN = (1 / 3, 1 / 3, 1 / 3, 0)


def full_decode(data: bytes, downscale: int) -> Gray:
    """Decode all, average blocks in colour, average the colours."""
    return decode_chain.small_mean(Image.open(io.BytesIO(data)).convert("RGB"), downscale)


def bindings() -> dict[str, Way]:
    """Return the other bindings that are here; the mean of their colours by Pillow, as in ours.

    None is among the requirements: pip install simplejpeg PyTurboJPEG. imagecodecs, OpenCV and
    torchvision do not decode at a quarter, or not in colour.
    """
    found: dict[str, Way] = {}
    try:
        import simplejpeg

        def by_simplejpeg(data: bytes, downscale: int) -> Gray:
            height, width = images.grid_size(carvana.HEIGHT, carvana.WIDTH, downscale)
            rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
            return np.asarray(Image.fromarray(rgb).convert("L", MEAN))

        found["simplejpeg"] = by_simplejpeg
    except ImportError:
        pass
    try:
        import turbojpeg

        decoder = turbojpeg.TurboJPEG(os.environ.get("TURBOJPEG"))

        def by_turbojpeg(data: bytes, downscale: int) -> Gray:
            rgb = decoder.decode(data, turbojpeg.TJPF_RGB, (1, downscale))
            return np.asarray(Image.fromarray(rgb).convert("L", MEAN))

        found["PyTurboJPEG"] = by_turbojpeg
    except (ImportError, RuntimeError, OSError):  # the library that it wraps is not there
        pass
    return found


def milliseconds(
    ways: dict[str, Way], pictures: list[bytes], downscale: int, rounds: int
) -> dict[str, float]:
    """Return each way's milliseconds of CPU a picture, the best of the rounds for each picture."""
    best = np.full((len(ways), len(pictures)), np.inf)
    for _ in range(rounds):
        for number, way in enumerate(ways.values()):
            for place, data in enumerate(pictures):
                began = time.thread_time()
                way(data, downscale)
                best[number, place] = min(best[number, place], time.thread_time() - began)
    return dict(zip(ways, (best.mean(axis=1) * 1e3).tolist(), strict=True))


def one_process(
    pictures: list[bytes], downscale: int, rounds: int
) -> dict[str, float | str | None]:
    """Print a table of the ways and return its figures."""
    there = bindings()
    ways = {"full decode": full_decode, **there, "load_gray": images.load_gray}
    best = milliseconds(ways, pictures, downscale, rounds)
    some = pictures[:16]
    full = [full_decode(data, downscale) * 1.0 for data in some]
    ours = [images.load_gray(data, downscale) * 1.0 for data in some]
    print(f"\n{'one process':12} ms a picture   levels from full decode (mean), from ours (most)")
    off, same = {}, {}
    for name, way in ways.items():
        grays = [way(data, downscale) for data in some]
        off[name] = float(np.mean([np.abs(a - b) for a, b in zip(grays, full, strict=True)]))
        same[name] = float(np.max([np.abs(a - b) for a, b in zip(grays, ours, strict=True)]))
        print(f"{name:12} {best[name]:12.2f} {off[name]:26.2f} {same[name]:19.0f}")
    found: dict[str, float | str | None] = {
        "full_ms": best["full decode"],
        "load_gray_ms": best["load_gray"],
        "ratio": best["full decode"] / best["load_gray"],
        "difference_levels": off["load_gray"],
        "fastest_binding": None,
    }
    others = [name for name in there if same[name] <= 1]
    if not others:
        print("no other binding here: pip install simplejpeg PyTurboJPEG")
        return found
    fastest = min(others, key=best.__getitem__)
    found |= {f"to_{name.lower()}": best["load_gray"] / best[name] for name in others}
    return found | {
        "fastest_binding": fastest,
        "to_fastest_binding": best["load_gray"] / best[fastest],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with train/")
    parser.add_argument("--limit", type=int, default=96, help="pictures, in one process")
    parser.add_argument("--downscale", type=int, default=4, choices=images.DOWNSCALES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--chain", type=int, default=400, help="pictures end to end; 0: none")
    flags = parser.parse_args()
    every = sorted(Path(flags.data, "train").resolve().glob("*.jpg"))
    if not every:
        parser.error(f"--data {flags.data}: no train/*.jpg there")
    paths = every[:: max(1, len(every) // flags.limit)][: flags.limit]  # over all cars
    pictures = [path.read_bytes() for path in paths]
    print(f"{len(pictures)} pictures of {np.mean([len(p) for p in pictures]) / 1e3:.0f} kB")
    found = one_process(pictures, flags.downscale, flags.rounds)
    if flags.chain:
        found |= decode_chain.measure(
            [str(path) for path in every],
            flags.chain,
            flags.downscale,
            flags.processes,
            flags.rounds,
        )
    print(
        json.dumps(
            {
                "benchmark": "decode",
                "pictures": len(pictures),
                "downscale": flags.downscale,
                "processes": flags.processes,
                **{
                    name: round(value, 3) if isinstance(value, float) else value
                    for name, value in found.items()
                },
                "pillow": PIL.__version__,
                "libjpeg_turbo": features.version("libjpeg_turbo"),
                "ray": ray.__version__,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
