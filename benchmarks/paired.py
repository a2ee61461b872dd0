"""Comparison of candidates by the Dice of the same cars, from the rows of `cross_validation`.

A row is one training: ``candidate``, ``epochs``, ``fold``, ``seed``, ``by_car`` (the mean Dice of
each scored car), ``lowest`` (of an image), ``images_seen``, ``train_seconds``,
``images_per_second``, ``device``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from error_map import markdown

LEAST = 0.0003  # of Dice; smaller differences are not decided

Row = Mapping[str, Any]
Group = tuple[str, int]  # a candidate and its epochs


def group_rows(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """Return the rows of each candidate and number of epochs; of equal trainings the last one."""
    groups: dict[Group, dict[tuple[int, int], Row]] = {}
    for row in rows:
        runs = groups.setdefault((row["candidate"], row["epochs"]), {})
        runs[row["fold"], row["seed"]] = row
    return {group: list(runs.values()) for group, runs in groups.items()}


def scores_by_car(rows: Iterable[Row]) -> dict[str, dict[int, float]]:
    """Return the Dice of each car by seed."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for car, dice in row["by_car"].items():
            found.setdefault(car, {})[row["seed"]] = dice
    return found


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of independent values; None for a single one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def compare(rows: Sequence[Row], base: Sequence[Row]) -> dict[str, Any]:
    """Return the difference of the rows from those of the base, over the trainings of both.

    The difference of a car is the mean over the seeds. It has two standard errors: over the cars,
    and over the trainings, pairs of the same fold and seed. The cars of a fold share a training,
    so the second one counts what a training differs from another as a whole. The larger one
    decides.
    """
    own, other = ({(row["fold"], row["seed"]): row for row in some} for some in (rows, base))
    common = sorted(own.keys() & other.keys())
    differences = [
        (car, training, dice - other[training]["by_car"][car])
        for training in common
        for car, dice in own[training]["by_car"].items()
    ]
    if not differences:
        return {"verdict": "no trainings in common"}
    by_car = means_by((car, value) for car, _, value in differences)
    by_training = means_by((training, value) for _, training, value in differences)
    by_seed = means_by((training[1], value) for _, training, value in differences)
    mean = float(np.mean(by_car))
    errors = standard_error(by_car), standard_error(by_training)
    return {
        "difference": mean,
        "error_by_car": errors[0],
        "error_by_training": errors[1],
        "differences_by_seed": by_seed,
        "verdict": judge(mean, errors, [(own[key], other[key]) for key in common]),
    }


def means_by(values: Iterable[tuple[Any, float]]) -> list[float]:
    """Return the means of the values with the same key, in the order of the keys."""
    groups: dict[Any, list[float]] = {}
    for key, value in values:
        groups.setdefault(key, []).append(value)
    return [float(np.mean(groups[key])) for key in sorted(groups)]


def judge(mean: float, errors: Iterable[float | None], trainings: Sequence[tuple[Row, Row]]) -> str:
    """Return in words whether a difference is decided, and what limits the comparison."""
    least = max([LEAST, *(2 * error for error in errors if error is not None)])
    verdict = "not decided" if abs(mean) < least else "better" if mean > 0 else "worse"
    if len(trainings) == 1:
        verdict += ", one training"
    if any(own["images_seen"] != other["images_seen"] for own, other in trainings):
        verdict += ", unequal budgets"
    return verdict


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of the trainings of one candidate."""
    scores = scores_by_car(rows)
    seeds = sorted({row["seed"] for row in rows})
    return {
        "candidate": rows[0]["candidate"],
        "epochs": rows[0]["epochs"],
        "images_seen": round(float(np.median([row["images_seen"] for row in rows]))),
        "folds": sorted({row["fold"] for row in rows}),
        "seeds": seeds,
        "cars": len(scores),
        "dice": float(np.mean([np.mean(list(of_car.values())) for of_car in scores.values()])),
        "dice_by_seed": [
            float(np.mean([of_car[seed] for of_car in scores.values() if seed in of_car]))
            for seed in seeds
        ],
        "lowest": min(row["lowest"] for row in rows),
        "train_seconds": float(np.median([row["train_seconds"] for row in rows])),
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        "devices": sorted({row["device"] for row in rows}),
    }


def compare_all(rows: Iterable[Row], base: str | None = None) -> list[dict[str, Any]]:
    """Return the figures of each candidate and number of epochs, and its difference from the base.

    The base is that candidate with the same epochs; without these, and for other epochs of the
    base itself, that with its first epochs.

    Args:
        rows: of all trainings.
        base: None for the candidate of the first row.
    """
    groups = group_rows(rows)
    first = next((group for group in groups if base in (None, group[0])), None)
    if first is None:
        raise SystemExit(f"{base}: no training of this candidate, with which to compare")
    compared = []
    for (name, epochs), own in groups.items():
        equal = (first[0], epochs)
        other = equal if name != first[0] and equal in groups else first
        found = {"verdict": "base"} if other == (name, epochs) else compare(own, groups[other])
        compared.append({**summarize(own), **found, "base": list(other)})
    return compared


def comparison_table(compared: Iterable[Mapping[str, Any]]) -> str:
    """Return a Markdown table of `compare_all`."""
    rows = []
    for row in compared:
        by_seed = ", ".join(f"{dice:.5f}" for dice in row["dice_by_seed"])
        difference = "-"
        if "difference" in row:
            errors = (row["error_by_car"], row["error_by_training"])
            texts = ("-" if error is None else f"{error:.5f}" for error in errors)
            difference = f"{row['difference']:+.5f} ± {', '.join(texts)}"
        cells = [row["candidate"], f"{row['epochs']}, {row['images_seen']:,}"]
        cells += [f"{len(row['folds'])}, {len(row['seeds'])}", f"{row['dice']:.5f}", by_seed]
        cells += [f"{row['lowest']:.3f}", difference, row["verdict"]]
        cells += [f"{row['train_seconds']:.1f}", f"{row['images_per_second']:,.0f}"]
        rows.append([*cells, ", ".join(row["devices"])])
    head = ["candidate", "epochs, images seen", "folds, seeds", "mean Dice", "by seed"]
    head += ["lowest image", "difference ± error by car, by training", ""]
    head += ["seconds of a training"]
    return markdown([*head, "images/s", "card"], rows)
