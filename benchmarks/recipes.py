"""Score recipes by Dice at full size on the cars that the program holds out, over several seeds.

    python benchmarks/recipes.py --data FOLDER [--recipes default best ...] [--seeds 0 1 2]

The images are decoded once and stay on the device. Network, training and prediction are the
project's own (`training.loop.train`, `Predictor`), without Ray and without disk access. A seed
determines initial weights, order and augmentation. The held-out cars are always those of seed 0, no
car is kept for validation, and the last epoch is scored. A recipe may have changes, as in
``best:epochs=20``, see `candidates.py`.

Choose on other cars, by `cross_validation.py`, and score here what was chosen. `--share 1/2` runs
every second (recipe, seed), for one process on each of two GPUs. The last line is one JSON object.
"""

import argparse
from pathlib import Path

import machine
import numpy as np
import torch
from candidates import read_candidate
from in_memory import load_all, pairs_of, score, train

from carvana_ray.config.recipes import RECIPES
from carvana_ray.data.cars import KAGGLE
from carvana_ray.data.split import split_cars


def main() -> None:
    """Train and score each recipe and seed, and print a row for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--recipes", nargs="+", default=list(RECIPES))
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
    candidates = [read_candidate(text, flags.epochs) for text in flags.recipes]
    todo = [(candidate, seed) for candidate in candidates for seed in flags.seeds]
    first, step = map(int, flags.share.split("/"))
    scales = sorted({candidate.recipe.downscale for candidate, _ in todo} | {1})
    data = {downscale: load_all(pairs, downscale, device) for downscale in scales}
    truth = data[1][1][held] > 127
    rows = []
    for candidate, seed in todo[first - 1 :: step]:
        recipe, scaled = candidate.recipe, data[candidate.recipe.downscale]
        state, took = train(recipe, seed, recipe.epochs, scaled[:, ~held], candidate.way)
        row = {"recipe": candidate.name, "seed": seed, "epochs": recipe.epochs}
        row |= {"images_seen": int(sum(epoch["images"] for epoch in state.history)), **took}
        scores, rate = score(state, recipe, scaled[0][held], truth)
        row |= {"dice": float(np.mean(scores)), "dice_min": min(scores)}
        rows.append(row | {"predicted_per_second": rate})
        print(" ".join(f"{k} {v:.6g}" if k != "recipe" else v for k, v in rows[-1].items()))
    counts = {"trained_on": int((~held).sum()), "scored": int(held.sum())}
    machine.print_result("recipes", rows=rows, **counts)


if __name__ == "__main__":
    main()
