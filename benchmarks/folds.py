"""Compare two ways of taking a training step by Dice at full size, paired by car, over seeds.

    python benchmarks/folds.py --data FOLDER [--recipes default best] [--epochs 5 20]
                               [--paths eager fused] [--seeds 0 1 2]

The cars that the program holds out of FOLDER (`recipes.py` scores them) stay untouched. Of the
others a fold of --score-cars is scored; the rest is trained on. `--list` prints the files that
this needs, for a machine that has none; there, with these files alone, use --holdout-cars 0.

The images are decoded once and stay on the device. For each recipe, the Dice of a car is the mean
over its views and the seeds, and the difference of a car is that of the second path less that of
the first. The standard error of the mean difference is that over the cars. Another one is that
over the seeds, which counts that a training differs from another as a whole. A loss is excluded if
the mean difference less two standard errors is above it. The last line is one JSON object.
"""

import argparse
import dataclasses
import gc
import math
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from in_memory import PATHS, Pair, job_path, load_all, pairs_of, score, train
from numpy.typing import NDArray

from carvana_ray.config.recipes import RECIPES
from carvana_ray.data.cars import KAGGLE
from carvana_ray.data.split import split_cars

LOSS = 0.0003  # of Dice, to be excluded
FOLD_SEED = 1


def split_pairs(
    pairs: list[Pair], holdout_cars: str, score_cars: str
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on and to score; those of the held-out cars are left out."""
    cars = KAGGLE.unique([image.name for image, _ in pairs])
    rest = split_cars(cars, holdout_cars, "0", 0)[0]
    trained, _, scored = map(set, split_cars(rest, score_cars, "0", FOLD_SEED))
    return (
        [pair for pair in pairs if KAGGLE.car_of(pair[0].name) in trained],
        [pair for pair in pairs if KAGGLE.car_of(pair[0].name) in scored],
    )


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of independent values; infinite for a single one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else math.inf


def compare(dice: NDArray[np.float64]) -> dict[str, Any]:
    """Return the comparison of two paths.

    Args:
        dice: float64 [2, seeds, cars].
    """
    difference = dice[1] - dice[0]
    by_car, by_seed = difference.mean(axis=0), difference.mean(axis=1)
    mean, error = float(difference.mean()), standard_error(by_car)
    return {
        "difference": mean,
        "error_by_car": error,
        "error_by_seed": standard_error(by_seed),
        "differences_by_seed": by_seed.tolist(),
        f"loss_of_{LOSS}_excluded": bool(mean - 2 * error > -LOSS),
        "loss_decided": bool(mean + 2 * error < 0),
    }


class Fold:
    """The images of a fold on the device."""

    def __init__(self, trained: list[Pair], scored: list[Pair], device: torch.device) -> None:
        self._trained, self._scored, self._device = trained, scored, device
        self.cars = [KAGGLE.car_of(image.name) for image, _ in scored]
        self._truth = load_all(scored, 1, device)[1] > 127

    def run(
        self, name: str, epochs: int, paths: list[str], seeds: list[int]
    ) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
        """Train and score a recipe; return a row a run, and the Dice [paths, seeds, cars]."""
        recipe = dataclasses.replace(RECIPES[name], epochs=epochs)
        data = load_all(self._trained, recipe.downscale, self._device)
        gray = load_all(self._scored, recipe.downscale, self._device)[0]
        cars, number = np.unique(self.cars, return_inverse=True)
        dice, rows = np.empty((len(paths), len(seeds), len(cars))), []
        for at, seed in enumerate(seeds):
            for way, path in enumerate(paths):
                began = time.perf_counter()
                state, took = train(recipe, seed, epochs, data, path)
                scores, _ = score(state, recipe, gray, self._truth)
                dice[way, at] = np.bincount(number, scores) / np.bincount(number)
                row = {"recipe": name, "epochs": epochs, "seed": seed, "path": path}
                row |= {"dice": float(np.mean(scores)), "lowest": min(scores)}
                row |= {"images_per_second": round(took["trained_per_second"], 1)}
                del state
                gc.collect()  # a state and its captured steps refer to each other
                rows.append(row | {"seconds": round(time.perf_counter() - began, 1)})
                print(rows[-1], flush=True)
        return rows, dice


def main() -> None:
    """Train and score, and print a row for each run and a comparison for each recipe."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, required=True, help="folder with train/, train_masks/")
    reader.add_argument("--recipes", nargs="+", default=["default", "best"], choices=list(RECIPES))
    reader.add_argument("--epochs", nargs="+", type=int, default=[5, 20], help="one a recipe")
    reader.add_argument("--paths", nargs="+", default=["eager", job_path()], choices=PATHS)
    reader.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    reader.add_argument("--holdout-cars", default="16", help="of all cars of the folder")
    reader.add_argument("--score-cars", default="20", help="of the others")
    reader.add_argument("--list", action="store_true", help="print the files and end")
    flags = reader.parse_args()
    trained, scored = split_pairs(pairs_of(flags.data), flags.holdout_cars, flags.score_cars)
    if flags.list:
        sys.stdout.writelines(f"{path}\n" for pair in sorted(trained + scored) for path in pair)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began = time.perf_counter()
    fold, rows, compared = Fold(trained, scored, device), [], {}
    for name, epochs in zip(flags.recipes, flags.epochs, strict=True):
        done, dice = fold.run(name, epochs, flags.paths, flags.seeds)
        rows += done
        if len(flags.paths) == 2:
            compared[name] = compare(dice)
            print(name, compared[name], flush=True)
    counts = {"trained_on": len(trained), "scored": len(scored)}
    seconds = round(time.perf_counter() - began, 1)
    machine.print_result("folds", rows=rows, compared=compared, **counts, seconds=seconds)


if __name__ == "__main__":
    main()
