"""Compare recipes by Dice at full size on held-out cars, over several seeds.

    python benchmarks/recipes.py --data FOLDER [--recipes default best ...] [--seeds 0 1 2]

The images are decoded once and stay on the device. Network, training and prediction are the
project's own (`training.loop.train`, `Predictor`), without Ray and without disk access. A seed
determines initial weights, order and augmentation. The held-out cars are always those of seed 0, no
car is kept for validation, and the last epoch is scored. Recipes in addition to the project's:

    folded        the old default with 4 x 4 blocks of pixels as channels: batches of 16, no
                  gradient clipping, 20 epochs
    default-16    the default recipe with batches of 16
    default-20    the default recipe for 20 epochs
    best-20       the best recipe for 20 epochs
    best-still    the best recipe without affine augmentation

`--share 1/2` runs every second (recipe, seed), for one process on each of two GPUs. The last line
is one JSON object.
"""

import argparse
import dataclasses
from pathlib import Path

import machine
import numpy as np
import torch
from in_memory import load_all, pairs_of, score, train

from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.data.cars import KAGGLE
from carvana_ray.data.split import split_cars

COMPARED: dict[str, Recipe] = {
    **RECIPES,
    "folded": dataclasses.replace(
        RECIPES["default"], unshuffle=4, downscale=1, epochs=20, batch_size=16, grad_clip_norm=None
    ),
    "default-16": dataclasses.replace(RECIPES["default"], batch_size=16),
    "default-20": dataclasses.replace(RECIPES["default"], epochs=20),
    "best-20": dataclasses.replace(RECIPES["best"], epochs=20),
    "best-still": dataclasses.replace(RECIPES["best"], affine_augment=False),
}


def main() -> None:
    """Train and score each recipe and seed, and print a row for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(COMPARED))
    reader.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    reader.add_argument("--holdout-cars", default="16")
    reader.add_argument("--epochs", type=int, help="epochs of each (default: the recipe's)")
    reader.add_argument("--share", default="1/1", help="part of the runs, such as 1/2")
    flags = reader.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = pairs_of(flags.data)
    names = [image.name for image, _ in pairs]
    cars = split_cars(KAGGLE.unique(names), flags.holdout_cars, "0", 0)
    held = torch.tensor([KAGGLE.car_of(name) in set(cars[2]) for name in names], device=device)
    todo = [(name, seed) for name in flags.recipes for seed in flags.seeds]
    first, step = map(int, flags.share.split("/"))
    scales = sorted({COMPARED[name].downscale for name, _ in todo} | {1})
    data = {downscale: load_all(pairs, downscale, device) for downscale in scales}
    truth = data[1][1][held] > 127
    rows = []
    for name, seed in todo[first - 1 :: step]:
        recipe = COMPARED[name]
        epochs = flags.epochs or recipe.epochs
        scaled = data[recipe.downscale]
        state, took = train(recipe, seed, epochs, scaled[:, ~held])
        row = {"recipe": name, "seed": seed, "epochs": epochs, **took}
        scores, rate = score(state, recipe, scaled[0][held], truth)
        row |= {"dice": float(np.mean(scores)), "dice_min": min(scores)}
        rows.append(row | {"predicted_per_second": rate})
        print(" ".join(f"{k} {v:.6g}" if k != "recipe" else v for k, v in rows[-1].items()))
    counts = {"trained_on": int((~held).sum()), "scored": int(held.sum())}
    machine.print_result("recipes", rows=rows, **counts)


if __name__ == "__main__":
    main()
