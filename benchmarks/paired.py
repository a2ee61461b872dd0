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


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of independent values; infinite for a single one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf


def compare(rows: Sequence[Row], base: Sequence[Row]) -> dict[str, Any]:
    """Return the difference of the rows from those of the base, over the cars and seeds of both.

    The difference of a car is the mean over the seeds. The standard error is that over the cars.
    The cars of a fold share a training, so with several seeds the differences by seed say more
    about how much a training differs from another as a whole.
    """
    own, other = scores_by_car(rows), scores_by_car(base)
    pairs = [
        (car, seed, own[car][seed] - other[car][seed])
        for car in sorted(own.keys() & other.keys())
        for seed in sorted(own[car].keys() & other[car].keys())
    ]
    if not pairs:
        return {"verdict": "no cars and seeds in common"}
    by_car, by_seed = (
        [float(np.mean([pair[2] for pair in pairs if pair[at] == key])) for key in keys]
        for at in (0, 1)
        for keys in [sorted({pair[at] for pair in pairs})]
    )
    mean, error = float(np.mean(by_car)), standard_error(by_car)
    verdict = "better" if mean > 0 else "worse"
    if abs(mean) < LEAST or abs(mean) < 2 * error:
        verdict = "not decided"
    seen, base_seen = (
        {(row["fold"], row["seed"]): row["images_seen"] for row in some} for some in (rows, base)
    )
    if any(seen[key] != base_seen[key] for key in seen.keys() & base_seen.keys()):
        verdict += ", unequal budgets"
    return {
        "difference": mean,
        "standard_error": error,
        "differences_by_seed": by_seed,
        "verdict": verdict,
    }


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
            difference = f"{row['difference']:+.5f} ± {row['standard_error']:.5f}"
        cells = [row["candidate"], f"{row['epochs']}, {row['images_seen']:,}"]
        cells += [f"{len(row['folds'])}, {len(row['seeds'])}", f"{row['dice']:.5f}", by_seed]
        cells += [f"{row['lowest']:.3f}", difference, row["verdict"]]
        cells += [f"{row['train_seconds']:.1f}", f"{row['images_per_second']:,.0f}"]
        rows.append([*cells, ", ".join(row["devices"])])
    head = ["candidate", "epochs, images seen", "folds, seeds", "mean Dice", "by seed"]
    head += ["lowest image", "difference ± standard error", "", "seconds of a training"]
    return markdown([*head, "images/s", "card"], rows)
