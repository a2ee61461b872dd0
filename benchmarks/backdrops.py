"""Score a model on real cars that are put before ten other backdrops.

    python benchmarks/backdrops.py --data FOLDER [--model starter] [--skip-cars 20] [--views 4]

Each photograph's car is cut out by its known mask and laid over plain colors, gradients, textures
and drawn rooms. The images are encoded as JPEG, and each mask is compared with the known one at
full size. The first --skip-cars cars by name are left out. The last line is one JSON object.
"""

import argparse
import functools
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from carvana_ray import images, sample
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import load_model
from carvana_ray.data import layout
from carvana_ray.data.cars import KAGGLE
from carvana_ray.inference.predictor import Predictor
from carvana_ray.sample import cars
from carvana_ray.sample.backdrop import draw_backdrop
from carvana_ray.sample.meshes import build_meshes

SIZE = (layout.WIDTH, layout.HEIGHT)
UNSEEN = 2**20  # a seed of rooms that no training draws
Floats = NDArray[np.float32]


def plain(level: int) -> Image.Image:
    """Return an even gray image."""
    return Image.new("RGB", SIZE, (level, level, level))


def from_levels(levels: Floats) -> Image.Image:
    """Return gray levels [h, w] of any size as an RGB image."""
    small = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return small.resize(SIZE, Image.Resampling.BICUBIC).convert("RGB")


def ramp(low: float, high: float, radial: bool) -> Image.Image:
    """Return a vertical ramp, or one from the center to the corners."""
    y, x = np.mgrid[0:1:80j, -1:1:120j].astype(np.float32)
    position = np.hypot(x, 2 * y - 1) / np.sqrt(2) if radial else y
    return from_levels(low + (high - low) * position)


def noise(seed: int) -> Image.Image:
    """Return smooth noise of three scales, as of plaster or concrete."""
    rng, total = np.random.default_rng(seed), np.zeros(SIZE[::-1], np.float32)
    for cells, strength in ((6, 30), (40, 16), (300, 12)):
        octave = Image.fromarray(rng.normal(0, strength, (cells, 3 * cells // 2)).astype("f4"))
        total += np.asarray(octave.resize(SIZE, Image.Resampling.BICUBIC))
    return from_levels(150 + total)


def tiles() -> Image.Image:
    """Return a wall of bricks with light joints."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]].astype(np.float32)
    row = np.floor(y / 64)
    joint = (y % 64 < 6) | ((x + 80 * (row % 2)) % 160 < 6)
    shade = 96 + 24 * np.sin(row * 7.0 + np.floor((x + 80 * (row % 2)) / 160) * 3.1)
    return from_levels(np.where(joint, 200, shade))


def room(seed: int) -> Image.Image:
    """Return a drawn room without its car, of the kind that the starter model was trained on."""
    rng = np.random.default_rng((UNSEEN, seed))
    car, dice = cars.pose(sample.draw_car(rng, "varied"), 1, rng)
    return draw_backdrop(car, build_meshes(car), 1, dice)


BACKDROPS: dict[str, Callable[[], Image.Image]] = {
    "white": functools.partial(plain, 250),
    "gray": functools.partial(plain, 128),
    "black": functools.partial(plain, 12),
    "ramp": functools.partial(ramp, 235, 90, False),
    "spot": functools.partial(ramp, 240, 60, True),
    "plaster": functools.partial(noise, 1),
    "bricks": tiles,
    "room 1": functools.partial(room, 1),
    "room 2": functools.partial(room, 2),
    "room 3": functools.partial(room, 3),
}


@functools.cache
def backdrop(name: str) -> Image.Image:
    """Return a backdrop, once a process."""
    return BACKDROPS[name]()


def compose(paths: tuple[Path, Path], name: str) -> NDArray[np.uint8]:
    """Return the gray image, [h, w], of a car before a backdrop."""
    mask = Image.fromarray(images.load_mask(paths[1].read_bytes()))
    soft = mask.convert("L").filter(ImageFilter.GaussianBlur(1))  # no saw teeth at the edge
    image = Image.composite(images.load_rgb(paths[0].read_bytes()), backdrop(name), soft)
    return images.load_gray(sample.encode_jpeg(np.asarray(image)), 4)


def main() -> None:
    """Score the model before each backdrop, and print a row for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--model", default="starter")
    reader.add_argument("--skip-cars", type=int, default=20)
    reader.add_argument("--views", type=int, default=4, help="photographs of each car")
    flags = reader.parse_args()
    network, manifest = load_model(resolve_model(flags.model))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = Predictor(network, device, manifest.tta_flip)
    names = [path.name for path in sorted((flags.data / "train").glob("*.jpg"))]
    scored = KAGGLE.unique(names)[flags.skip_cars :]
    step = layout.VIEWS // flags.views
    files = [f"{car}_{view:02d}" for car in scored for view in range(1, layout.VIEWS + 1, step)]
    folders = flags.data / "train", flags.data / "train_masks"
    paths = [(folders[0] / f"{name}.jpg", folders[1] / f"{name}_mask.gif") for name in files]
    everything: dict[str, list[float]] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in BACKDROPS:
            composed = pool.map(compose, paths, [name] * len(paths), chunksize=4)
            scores = []
            for pair, gray in zip(paths, composed, strict=True):
                soft_mask = predictor.soft_masks(gray[None])[0].cpu().numpy()
                mask = images.enlarge(soft_mask, layout.HEIGHT, layout.WIDTH)
                truth = images.load_mask(pair[1].read_bytes())
                scores.append(2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum()))
            everything[name] = scores
            print(
                f"{name:8} {np.mean(scores):.4f}  p10 {np.percentile(scores, 10):.4f}", flush=True
            )
    rows = {name: round(float(np.mean(scores)), 5) for name, scores in everything.items()}
    scores = [score for some in everything.values() for score in some]
    total = {"dice": float(np.mean(scores)), "p10": float(np.percentile(scores, 10))}
    print(json.dumps({"images": len(scores), "cars": len(scored), **total, "backdrops": rows}))


if __name__ == "__main__":
    main()
