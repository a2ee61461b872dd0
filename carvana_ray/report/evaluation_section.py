"""What an evaluation has to show: how good the masks are, where they are worst, how it was trained.

A part of the report is plain values, as `parts` keeps them; the keys of this one:

    result        images, dice, dice_min
    scores        [img, car, view, dice, ceiling, more, less], the worst first; more and less: of
                  mask without car and of car without mask the pixels, as shares of the car
    worst, median figures of `layers.scored`
    history       a row an epoch
    seconds       of each step, in order; speed: names and values
    lineage       headings, and below each names and values
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from carvana_ray.report import charts
from carvana_ray.report import html_elements as markup
from carvana_ray.report import image_cards as shots
from carvana_ray.report.page import Section

HEADER = ("picture", "car", "view", "Dice", "ceiling", "too much %", "missed %")
ROWS = 6_000  # of the table of all pictures; 5,088 of them are 0.9 MB of the page
CARS = 40  # in the chart

Part = dict[str, Any]


def cards(part: Part) -> list[tuple[str, str, str]]:
    """Return the headline figures: name, value, note."""
    scores = part["scores"]
    dice = np.array([row[3] for row in scores])
    ceiling = float(np.mean([row[4] for row in scores]))
    return [
        ("Dice", f"{dice.mean():.4f}", "mean at full size, on cars never trained on"),
        (
            "Ceiling",
            f"{ceiling:.4f}",
            f"of a perfect network on this grid; {ceiling - dice.mean():.4f} is left to gain",
        ),
        (
            "Median picture",
            f"{np.median(dice):.4f}",
            f"nine of ten above {np.quantile(dice, 0.1):.4f}",
        ),
        ("Worst picture", f"{dice.min():.4f}", str(scores[0][0])),
        ("Pictures scored", f"{len(scores):,}", f"{len({row[1] for row in scores}):,} cars"),
    ]


def sections(part: Part) -> list[Section]:
    """Return the sections of an evaluation."""
    lead = shots.legend_of_errors()
    return [
        Section(
            "worst",
            "Worst pictures",
            "Worst pictures",
            lead + shots.shots(part["worst"], "w", True),
        ),
        Section("dice", "Dice", "How the Dice is spread", _spread(part["scores"])),
        Section(
            "median",
            "Median pictures",
            "Median pictures: what to expect",
            shots.shots(part["median"], "m", True),
        ),
        Section("training", "Training", "How it was trained", _training(part["history"])),
    ]


def _groups(scores: Sequence[Sequence[Any]], column: int) -> list[tuple[str, float, float, float]]:
    """Return (name, least, mean, most) of the Dice of each car (column 1) or view (2), in order."""
    groups: dict[Any, list[float]] = {}
    for row in scores:
        groups.setdefault(row[column], []).append(row[3])
    return [
        (str(name), min(found), float(np.mean(found)), max(found))
        for name, found in sorted(groups.items())
    ]


def _spread(scores: Sequence[Sequence[Any]]) -> str:
    dice = [row[3] for row in scores]
    cars, views = _groups(scores, 1), _groups(scores, 2)
    hardest = sorted(cars, key=lambda row: row[2])[:CARS]
    which = "each car" if len(cars) <= CARS else f"the {CARS} cars with the lowest mean"
    ceiling = float(np.mean([row[4] for row in scores]))
    tail = ""
    if len(dice) >= charts.MANY:
        tail = f"One percent below {np.quantile(dice, 0.01):.4f} is counted in the first bar. "
    made = charts.histogram(
        "Histogram of Dice",
        "Dice",
        dice,
        ("ceiling", ceiling),
        f"Pictures by Dice. Mean {np.mean(dice):.4f}, median {np.median(dice):.4f}. {tail}The "
        f"dashed line is the ceiling, {ceiling:.4f}: what a network without any error would reach "
        "on this grid.",
    )
    line = "The dot is the mean, the line reaches from the worst picture to the best."
    if len(views) > 1:
        made += charts.ranges(
            "Dice by view", "Dice", [(f"view {v}", *rest) for v, *rest in _by_number(views)], line
        )
    made += charts.ranges("Dice by car", "Dice", hardest, f"{line} Shown: {which}.")
    header = ["worst", "mean", "best"]
    tables = markup.table("Dice by view", ["view", *header], _by_number(views), sortable=True)
    tables += markup.table("Dice by car", ["car", *header], cars, sortable=True)
    rows = [(*row[:5], round(100 * row[5], 3), round(100 * row[6], 3)) for row in scores[:ROWS]]
    caption = f"All {len(scores):,} pictures, the worst first"
    if len(scores) > ROWS:
        caption = f"The {ROWS:,} worst pictures; all {len(scores):,} are in evaluation.csv"
    return (
        markup.element("div", made, class_="grid")
        + markup.details("The same by view and by car as tables", tables)
        + markup.details("Every picture", markup.table(caption, HEADER, rows, sortable=True))
    )


def _by_number(views: list[tuple[str, float, float, float]]) -> list[tuple[Any, ...]]:
    return [(int(name), *rest) for name, *rest in sorted(views, key=lambda row: int(row[0]))]


def _training(history: Sequence[dict[str, float]]) -> str:
    if not history:
        return ""

    def line(name: str, key: str) -> charts.Series:
        return name, [(row["epoch"], row[key]) for row in history if key in row]

    best = max(history, key=lambda row: (row.get("val_dice", 0.0), row["epoch"]))
    chosen = f"Of validation cars the best is epoch {best['epoch']}." if "val_dice" in best else ""
    plots = [
        charts.lines(
            "Loss by epoch",
            "epoch",
            [line("training", "loss"), line("validation", "val_loss")],
            "Loss: cross entropy / 2 - Dice + 1. Less is better.",
        ),
        charts.lines(
            "Dice by epoch",
            "epoch",
            [
                line("training", "dice"),
                line("validation", "val_dice"),
                line("train. soft", "soft_dice"),
                line("valid. soft", "val_soft_dice"),
            ],
            f"Dice on the network's grid; soft: before the threshold. {chosen}",
        ),
        charts.lines(
            "Accuracy by epoch",
            "epoch",
            [line("training", "accuracy"), line("validation", "val_accuracy")],
            "Accuracy: share of pixels that agree, on the network's grid.",
        ),
        charts.lines(
            "Pictures a second by epoch",
            "epoch",
            [line("pictures/s", "images_per_second")],
            "Speed of training, without the first batch of an epoch.",
        ),
    ]
    keys = [
        key
        for key in ("loss", "dice", "accuracy", "val_loss", "val_dice", "val_accuracy")
        if any(key in row for row in history)
    ]
    rows = [
        (int(row["epoch"]), *(float(row.get(key, float("nan"))) for key in keys)) for row in history
    ]
    return markup.element("div", "".join(plots), class_="grid") + markup.details(
        "The same as a table", markup.table("Epochs of training", ["epoch", *keys], rows)
    )
