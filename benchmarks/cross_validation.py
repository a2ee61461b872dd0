"""Compare recipes and changes of them by Dice at full size, over folds of cars, paired by car.

    python benchmarks/cross_validation.py --data FOLDER --candidates best best:batch_size=4
                               [--epochs 20] [--seeds 0] [--folds 0 1 2 3] [--share 1/2]
    python benchmarks/cross_validation.py --join FILES

The cars that the program holds out of FOLDER (`recipes.py` scores them) stay untouched: choices are
made here. A shuffle divides the others into four folds. For each fold and seed, each candidate
trains on the other three folds and is scored on this one. `candidates.py` says how candidates are
written. The first one is the base. The others are compared with the base at their own epochs, if
it ran with these. `--list` prints the files that this needs; on a machine with these files alone,
use --holdout-cars 0.

The images are decoded once and stay on the device: seconds and rates are those of a loop without
Ray, not of a job. The Dice of a car is the mean over its views and the seeds. A difference is
decided if it is at least 0.0003 and two standard errors, over the cars and over the trainings.

Each training prints a row, a JSON object on a line of its own. `--share 1/2` runs every second pair
of a seed and a fold, for one process on each of two GPUs. `--join` compares the rows in the output
of several processes, also of processes that were stopped. `--sheet` writes the worst images of the
first candidate with their errors: red where the mask has no car, blue where it misses some. The
last line is one JSON object.
"""

import argparse
import contextlib
import gc
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import error_map
import machine
import numpy as np
import paired
import torch
from candidates import Candidate, read_candidate
from in_memory import SIZE, Pair, dice_of, load_all, pairs_of, predict, train
from numpy.typing import NDArray

from carvana_ray.data.cars import KAGGLE
from carvana_ray.data.split import split_cars
from carvana_ray.images import load_mask
from carvana_ray.inference import mask_kernels
from carvana_ray.report.contact_sheet import Tile, load_upright, overlay_errors, render_sheet
from carvana_ray.report.overlays import find_worst_window

FOLDS, ORDER_SEED = 4, 2026
AT_ONCE = 8  # images of full size
SHEET_CARS, TILE_HEIGHT, TILE_WIDTH = 12, 400, 600


class Scored(NamedTuple):
    """A scored image: its files, its Dice and the mask, bool [H, W]."""

    pair: Pair
    dice: float
    mask: NDArray[np.bool_]


def fold_cars(cars: list[str], holdout_cars: str = "16") -> list[list[str]]:
    """Return the cars of each fold; the cars that the program holds out are in none."""
    rest = split_cars(cars, holdout_cars, "0", 0)[0]
    order = np.random.default_rng(ORDER_SEED).permutation(len(rest))
    return [sorted(rest[at] for at in order[fold::FOLDS]) for fold in range(FOLDS)]


class Folds:
    """The images of all folds on a device."""

    def __init__(self, pairs: list[Pair], folds: list[list[str]], device: torch.device) -> None:
        fold_of = {car: fold for fold, cars in enumerate(folds) for car in cars}
        self._pairs = [pair for pair in pairs if KAGGLE.car_of(pair[0].name) in fold_of]
        self._names = [KAGGLE.parse(image.name) for image, _ in self._pairs]
        self._fold = torch.tensor([fold_of[car] for car, _ in self._names], device=device)
        self._device = device
        self._scaled = {1: load_all(self._pairs, 1, device)}
        self.worst: dict[str, Scored] = {}  # the last scored candidate's worst image of each car

    def run(self, candidate: Candidate, fold: int, seed: int) -> dict[str, Any]:
        """Train a candidate on the other folds and score it on this one; return the row."""
        recipe, scored = candidate.recipe, self._fold == fold
        if recipe.downscale not in self._scaled:
            self._scaled[recipe.downscale] = load_all(self._pairs, recipe.downscale, self._device)
        data = self._scaled[recipe.downscale]
        state, took = train(recipe, seed, recipe.epochs, data[:, ~scored], candidate.way)
        soft_masks, _ = predict(state, recipe, data[0, scored])
        row = {"candidate": candidate.name, "epochs": recipe.epochs, "fold": fold, "seed": seed}
        row |= self._score(soft_masks, scored)
        return row | {
            "images_seen": int(sum(epoch["images"] for epoch in state.history)),
            "train_seconds": round(60 * took["minutes"], 1),
            "images_per_second": round(took["trained_per_second"], 1),
        }

    def _score(self, soft_masks: torch.Tensor, scored: torch.Tensor) -> dict[str, Any]:
        """Return the Dice and the errors of masks, and keep the worst one of each car."""
        numbers = scored.nonzero()[:, 0].tolist()
        full, dice, counts = self._scaled[1], np.empty(len(numbers)), []
        for start in range(0, len(numbers), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            gray, truth = full[0, numbers[some]], full[1, numbers[some]] > 127
            masks = mask_kernels.enlarge(soft_masks[some], *SIZE)
            dice[some] = dice_of(masks, truth).cpu()
            counts.append(error_map.count_errors(masks, truth, gray))
            for at, mask in enumerate(masks, start):
                self._keep(numbers[at], float(dice[at]), mask)
        cars, views = zip(*(self._names[number] for number in numbers), strict=True)
        errors = {
            key: (sum(count[key] for count in counts) / len(numbers)).tolist() for key in counts[0]
        }
        return {
            "dice": float(dice.mean()),
            "lowest": float(dice.min()),
            "by_car": means_by(cars, dice),
            "errors": {"images": len(numbers), **errors, "views": means_by(views, dice)},
        }

    def _keep(self, number: int, dice: float, mask: torch.Tensor) -> None:
        car = self._names[number][0]
        if car not in self.worst or dice < self.worst[car].dice:
            self.worst[car] = Scored(self._pairs[number], dice, mask.cpu().numpy())


def means_by(keys: tuple[Any, ...], values: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of the values of each key, by the key as text."""
    return {str(key): float(values[np.array(keys) == key].mean()) for key in sorted(set(keys))}


def draw_worst(worst: list[Scored], title: str) -> bytes:
    """Return a sheet as JPEG: a row for each image, whole and its worst part in full size."""
    rows: list[list[Tile]] = []
    for (image_file, mask_file), dice, mask in worst:
        image, truth = image_file.read_bytes(), load_mask(mask_file.read_bytes())
        top, left = find_worst_window(mask ^ truth, TILE_HEIGHT, TILE_WIDTH)
        part = np.s_[top : top + TILE_HEIGHT, left : left + TILE_WIDTH]
        whole = overlay_errors(load_upright(image, TILE_WIDTH), mask, truth)
        close = load_upright(image)[part]
        caption = f"{image_file.stem}, Dice {dice:.4f}"
        rows.append([(caption, whole), ("the worst part", close)])
        rows[-1].append(("its errors", overlay_errors(close, mask[part], truth[part])))
    return render_sheet(rows, title)


def run_all(flags: argparse.Namespace, candidates: list[Candidate]) -> Iterator[dict[str, Any]]:
    """Yield the row of each training; write the sheet, if one is wanted, at the end."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    pairs = pairs_of(flags.data)
    cars = KAGGLE.unique([image.name for image, _ in pairs])
    folds = Folds(pairs, fold_cars(cars, flags.holdout_cars), device)
    first, step = map(int, flags.share.split("/"))
    todo = itertools.product(flags.seeds, flags.folds)
    worst: dict[str, Scored] = {}
    for seed, fold in itertools.islice(todo, first - 1, None, step):
        for candidate in candidates:
            folds.worst = {}
            row = {**folds.run(candidate, fold, seed), "device": card}
            gc.collect()  # a state and its captured steps refer to each other
            print(
                f"{row['candidate']}, epochs {row['epochs']}, fold {fold}, seed {seed}: "
                f"Dice {row['dice']:.5f}, {row['train_seconds']} s",
                file=sys.stderr,
            )
            if candidate is candidates[0]:
                worst |= folds.worst
            yield row
    if flags.sheet:
        found = sorted(worst.values(), key=lambda scored: scored.dice)[:SHEET_CARS]
        flags.sheet.write_bytes(draw_worst(found, f"Worst images: {flags.candidates[0]}"))


def read_rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows in the output of processes; a line that one did not finish is left out."""
    for line in (line for file in files for line in file.read_text().splitlines()):
        with contextlib.suppress(json.JSONDecodeError):
            if line.startswith("{") and "by_car" in (row := json.loads(line)):
                yield row


def report(rows: list[dict[str, Any]], base: str | None) -> None:
    """Print the tables and the last line."""
    compared = paired.compare_all(rows, base)
    groups = paired.group_rows(rows).items()
    errors = {
        f"{name}, {epochs} epochs": error_map.join_errors([row["errors"] for row in own])
        for (name, epochs), own in groups
    }
    print(paired.comparison_table(compared), error_map.error_tables(errors), sep="\n\n")
    machine.print_result("cross_validation", compared=compared, errors=errors)


def read_flags(arguments: list[str] | None) -> argparse.Namespace:
    """Return the flags of a command line."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, help="folder with train/, train_masks/")
    reader.add_argument("--candidates", nargs="+", default=[], help="the first one is the base")
    reader.add_argument("--epochs", type=int, help="of each (default: the recipe's)")
    reader.add_argument("--seeds", nargs="+", type=int, default=[0])
    reader.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    reader.add_argument("--holdout-cars", default="16", help="of all cars of the folder")
    reader.add_argument("--share", default="1/1", help="part of the folds and seeds, such as 1/2")
    reader.add_argument("--join", nargs="+", type=Path, help="outputs of this script")
    reader.add_argument("--sheet", type=Path, help="JPEG of the worst images")
    reader.add_argument("--list", action="store_true", help="print the files and end")
    flags = reader.parse_args(arguments)
    if not flags.join and not (flags.data and (flags.candidates or flags.list)):
        reader.error("name --data and --candidates, or --join")
    if flags.sheet and machine.REPOSITORY in flags.sheet.resolve().parents:
        reader.error(f"--sheet {flags.sheet}: name a file outside the repository")
    return flags


def main(arguments: list[str] | None = None) -> None:
    """Train and score, or join; print a row for each training, then the tables."""
    flags = read_flags(arguments)
    if flags.list:
        pairs = pairs_of(flags.data)
        cars = KAGGLE.unique([image.name for image, _ in pairs])
        wanted = set(itertools.chain(*fold_cars(cars, flags.holdout_cars)))
        files = (file for pair in pairs for file in pair if KAGGLE.car_of(pair[0].name) in wanted)
        sys.stdout.writelines(f"{file}\n" for file in files)
        return
    if flags.join:
        report(list(read_rows(flags.join)), flags.candidates[0] if flags.candidates else None)
        return
    candidates = [read_candidate(text, flags.epochs) for text in flags.candidates]
    rows = []
    for row in run_all(flags, candidates):
        rows.append(row)
        print(json.dumps(row), flush=True)
    report(rows, candidates[0].name)


if __name__ == "__main__":
    main()
