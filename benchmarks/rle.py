"""How fast masks become run-length text, and text is read: ours beside what is usual.

    python benchmarks/rle.py --data FOLDER [--limit 96] [--rounds 7]

Real masks at full size, in one process. The usual encoder is that of the competition's solutions;
the other one, with a border of background that numpy makes 64-bit integers of, is its most copied
form. The ways take turns; each way's best round counts, since a shared machine only ever adds time.
A mask is encoded once when others have driven it out of the core's cache ("from memory"), and
several times in a row ("in cache": as where it has just been made). The last line is one JSON
object.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import images, rle

AGAIN = 3  # times in a row that count as "in cache", after one that does not count


def usual(mask: NDArray[np.bool_]) -> str:
    """Encode as the competition's solutions do; both corners must be background."""
    pixels = mask.flatten()
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 2
    runs[1::2] -= runs[:-1:2]
    return " ".join(str(x) for x in runs)


def usual_with_border(mask: NDArray[np.bool_]) -> str:
    """Encode as most notebooks do."""
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def plain_text(numbers: NDArray[np.int64]) -> str:
    """Write starts and lengths as one would without thinking of it."""
    return " ".join(map(str, numbers.tolist()))


def plain_parse(text: str) -> NDArray[np.int64]:
    """Read numbers as one would without thinking of it, and look for no fault."""
    return np.array([int(word) for word in text.split()])


def seconds(way: Callable[[Any], Any], things: list) -> tuple[float, float]:
    """Return the seconds that all things take, one after the other and again in a row."""
    fresh = again = 0.0
    for thing in things:
        began = time.perf_counter()
        way(thing)
        fresh += time.perf_counter() - began
    for thing in things:
        way(thing)
        began = time.perf_counter()
        for _ in range(AGAIN):
            way(thing)
        again += (time.perf_counter() - began) / AGAIN
    return fresh, again


def ways_of(masks: list[NDArray[np.bool_]]) -> dict[str, tuple[Callable[[Any], Any], list]]:
    """Return what is timed: from its name to the function and what it is given, one by one."""
    ends = [np.stack(rle.mask_to_runs(mask), axis=1).astype(np.int32).tobytes() for mask in masks]
    texts = [rle.encode(mask) for mask in masks]
    pixels = masks[0].size
    if not texts == [usual(mask) for mask in masks] == [usual_with_border(mask) for mask in masks]:
        raise RuntimeError("the encoders do not agree")
    return {
        "encode: usual": (usual, masks),
        "encode: usual, border": (usual_with_border, masks),
        "encode: ours": (rle.encode, masks),
        "text: usual": (plain_text, [plain_parse(text) for text in texts]),
        "text: ours": (rle.text_from_bounds, ends),
        "parse: int(), no faults": (plain_parse, texts),
        "parse: ours": (lambda text: rle.parse_runs(text, pixels), texts),
        "sound? ours": (
            lambda some: rle.all_valid(some, [pixels] * len(some)),
            [texts[at : at + 32] for at in range(0, len(texts), 32)],
        ),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with train_masks/")
    parser.add_argument("--limit", type=int, default=96, help="masks")
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    paths = sorted(Path(flags.data, "train_masks").glob("*.gif"))
    paths = paths[:: max(1, len(paths) // flags.limit)][: flags.limit]  # over all cars
    masks = [images.load_mask(path.read_bytes()) for path in paths]
    ways = ways_of(masks)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(flags.rounds):
        for name, (way, things) in ways.items():
            times[name].append(seconds(way, things))
    best = {
        name: [min(column) / len(masks) * 1e6 for column in zip(*found, strict=True)]
        for name, found in times.items()
    }
    numbers = float(np.mean([2 * len(rle.mask_to_runs(mask)[0]) for mask in masks]))
    print(f"{len(masks)} masks of {masks[0].shape}, {numbers:.0f} numbers each on average")
    print(f"{'us a mask':24} from memory   in cache")
    for name, (fresh, again) in best.items():
        print(f"{name:24} {fresh:11.1f} {again:10.1f}")
    ratios = {
        f"{what}_{where}": round(best[usual_way][at] / best[own][at], 2)
        for what, usual_way, own in (
            ("encode", "encode: usual", "encode: ours"),
            ("encode_border", "encode: usual, border", "encode: ours"),
            ("text", "text: usual", "text: ours"),
            ("parse", "parse: int(), no faults", "parse: ours"),
        )
        for at, where in enumerate(("from_memory", "in_cache"))
    }
    print(
        json.dumps(
            {
                "benchmark": "rle",
                "masks": len(masks),
                "numbers": round(numbers, 1),
                "us": {
                    name: [round(value, 1) for value in values] for name, values in best.items()
                },
                "ratios": ratios,
                "numpy": np.__version__,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
