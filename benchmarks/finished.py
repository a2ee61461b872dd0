"""Finished pictures against plain cut-outs: seconds of whole commands, and where the cars stand.

    python benchmarks/finished.py --images FOLDER [--model MODEL] [--rounds 3]

Runs `cutout` on the images of FOLDER with each of `LOOKS`, in turn, and prints the load of the
machine before each round, then medians and their ratios to the plain one. Then it measures the
boxes of the cars in framed cut-outs with a transparent background: how far they are from the floor
line and the middle, and how far the largest view of a car is from filling the frame.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
from few_images import seconds_of
from PIL import Image

from carvana_ray.cutouts import extents
from carvana_ray.cutouts.framing import CATALOGUE_SIZE, FLOOR, Frame
from carvana_ray.data.cars import KAGGLE

FRAMED = ("--frame", "catalogue")
SHOP = (*FRAMED, "--shadow", "contact", "--background", "white", "--format", "jpeg")
LOOKS = {
    "plain": (),
    "framed": FRAMED,
    "finished": SHOP,
    "finished, with pages that turn": (*SHOP, "--viewer"),
}
MARGIN = 0.05  # the flag's default


def deviations(cutouts: Path) -> dict[str, float]:
    """Return the largest distances of cars from where they belong, in pixels."""
    width, height = CATALOGUE_SIZE
    found: dict[str, list[float]] = {"floor line": [], "middle": [], "largest view": []}
    sizes: dict[str, list[tuple[int, int]]] = {}
    for path in sorted(cutouts.glob("*.png")):
        car = np.asarray(Image.open(path).getchannel("A")) >= 128
        x, y = np.flatnonzero(car.any(0)), np.flatnonzero(car.any(1))
        found["floor line"].append(abs(y[-1] + 1 - FLOOR * height))
        found["middle"].append(abs((x[0] + x[-1] + 1) / 2 - width / 2))
        size = int(x[-1] + 1 - x[0]), int(y[-1] + 1 - y[0])
        sizes.setdefault(KAGGLE.car_of(path.name), []).append(size)
    known, frame = extents.load(str(cutouts)), Frame("catalogue", CATALOGUE_SIZE, MARGIN)
    for car, views in sizes.items():
        scale = extents.scale_of(frame, known[car])
        for axis, length in enumerate(known[car]):
            found["largest view"].append(abs(max(view[axis] for view in views) - scale * length))
    return {name: round(float(max(values)), 2) for name, values in found.items()}


def main() -> None:
    """Print a line for each round and result, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    count = len(list(flags.images.glob("*.jpg")))
    seconds: dict[str, list[float]] = {name: [] for name in LOOKS}
    with tempfile.TemporaryDirectory(prefix="finished-") as home:
        for number in range(flags.rounds):
            print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
            for name, look in LOOKS.items():
                out = Path(home) / name.replace(", ", "-").replace(" ", "-")
                seconds[name].append(seconds_of(flags.images, flags.model, out, *look))
        boxes = deviations(Path(home) / "framed" / "cutouts")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratio = median / medians["plain"]
        print(f"{name}: {median / count:.3f} s an image, {ratio:.2f} times the plain one")
    print(f"largest distances in pixels: {boxes}")
    row = {"images": count, "seconds": seconds, "distances": boxes}
    print(json.dumps({"benchmark": "finished", "cores": os.cpu_count(), **row}))


if __name__ == "__main__":
    main()
