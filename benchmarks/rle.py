"""Measure run-length encoding and parsing against the usual functions.

    python benchmarks/rle.py --data FOLDER [--limit 96] [--rounds 7]

Real masks at full size, in one process. The usual encoder is that of the competition's solutions;
"border" is its most copied form, which pads the mask and so turns it into 64-bit integers. The
functions take turns, and the best round of each counts: other work on a shared machine only adds
time. A mask is encoded once after other masks have displaced it from the core's cache ("from
memory"), and several times in a row ("in cache", as for a mask that was just computed). The last
line is one JSON object.
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

REPEATS = 3  # counted repetitions in cache, after one that is not counted


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
    """Write starts and lengths in the obvious way."""
    return " ".join(map(str, numbers.tolist()))


def plain_parse(text: str) -> NDArray[np.int64]:
    """Read numbers in the obvious way, without validation."""
    return np.array([int(word) for word in text.split()])


def seconds(function: Callable[[Any], Any], inputs: list) -> tuple[float, float]:
    """Return the seconds for all inputs, from memory and in cache."""
    from_memory = in_cache = 0.0
    for value in inputs:
        began = time.perf_counter()
        function(value)
        from_memory += time.perf_counter() - began
    for value in inputs:
        function(value)
        began = time.perf_counter()
        for _ in range(REPEATS):
            function(value)
        in_cache += (time.perf_counter() - began) / REPEATS
    return from_memory, in_cache


def timed_functions(
    masks: list[NDArray[np.bool_]],
) -> dict[str, tuple[Callable[[Any], Any], list]]:
    """Return the functions to time and their inputs, by name."""
    bounds = [np.stack(rle.mask_to_runs(mask), axis=1).astype(np.int32).tobytes() for mask in masks]
    texts = [rle.encode(mask) for mask in masks]
    pixels = masks[0].size
    if not texts == [usual(mask) for mask in masks] == [usual_with_border(mask) for mask in masks]:
        raise RuntimeError("the encoders do not agree")
    return {
        "encode: usual": (usual, masks),
        "encode: usual, border": (usual_with_border, masks),
        "encode: ours": (rle.encode, masks),
        "text: usual": (plain_text, [plain_parse(text) for text in texts]),
        "text: ours": (rle.text_from_bounds, bounds),
        "parse: int(), no faults": (plain_parse, texts),
        "parse: ours": (lambda text: rle.parse_runs(text, pixels), texts),
        "valid? ours": (
            lambda chunk: rle.all_valid(chunk, [pixels] * len(chunk)),
            [texts[start : start + 32] for start in range(0, len(texts), 32)],
        ),
    }


def best_microseconds(masks: list[NDArray[np.bool_]], rounds: int) -> dict[str, list[float]]:
    """Return the best microseconds per mask of each function: from memory and in cache."""
    functions = timed_functions(masks)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, (function, inputs) in functions.items():
            times[name].append(seconds(function, inputs))
    return {
        name: [min(column) / len(masks) * 1e6 for column in zip(*pairs, strict=True)]
        for name, pairs in times.items()
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
    best = best_microseconds(masks, flags.rounds)
    numbers = float(np.mean([2 * len(rle.mask_to_runs(mask)[0]) for mask in masks]))
    print(f"{len(masks)} masks of {masks[0].shape}, {numbers:.0f} numbers each on average")
    print(f"{'us a mask':24} from memory   in cache")
    for name, (from_memory, in_cache) in best.items():
        print(f"{name:24} {from_memory:11.1f} {in_cache:10.1f}")
    ratios = {
        f"{name}_{where}": round(best[usual_name][column] / best[own_name][column], 2)
        for name, usual_name, own_name in (
            ("encode", "encode: usual", "encode: ours"),
            ("encode_border", "encode: usual, border", "encode: ours"),
            ("text", "text: usual", "text: ours"),
            ("parse", "parse: int(), no faults", "parse: ours"),
        )
        for column, where in enumerate(("from_memory", "in_cache"))
    }
    result = {
        "benchmark": "rle",
        "masks": len(masks),
        "numbers": round(numbers, 1),
        "us": {name: [round(value, 1) for value in values] for name, values in best.items()},
        "ratios": ratios,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
