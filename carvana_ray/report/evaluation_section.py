"""The page's sections on an evaluation: how good the masks are, where they are worst, training.

Keys of its part of the report:

    result        images, dice, dice_min
    scores        [img, car, view, dice, ceiling, more, less], the worst first; more and less are
                  pixels of mask without car and of car without mask, as fractions of the car
    worst, median figures of `overlays.scored_figure`
    shown         optionally figures of cut-outs
    history       a row an epoch
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from carvana_ray.report import charts
from carvana_ray.report.charts import Chart, Range
from carvana_ray.report.page import Card, ChartsAndTables, Column, ImageGrid, Section, Table
from carvana_ray.report.training_curves import CURVES, History
from carvana_ray.runtime.wording import count_of

MAX_ROWS = 6_000  # of the table of all images; 5,088 rows are 0.9 MB of the page
MAX_CARS = 16  # in the chart, as many as there are views of a car
WORST_SHOWN = 3  # that are not folded away

Part = dict[str, Any]
Scores = Sequence[Sequence[Any]]


def cards(part: Part) -> list[Card]:
    """Return the figures of quality."""
    scores = part["scores"]
    dice, ceiling = _dice_and_ceiling(scores)
    most = f"nine of ten images are above {np.quantile(dice, 0.1):.4f}"
    worst = Card("Worst image", f"{dice.min():.4f}", "", str(scores[0][0]))
    return [
        Card("Dice", f"{dice.mean():.4f}", "mean at full size, on cars not used for training"),
        Card("Median image", f"{np.median(dice):.4f}", most),
        worst,
        Card("Ceiling", f"{ceiling:.4f}", "Dice of perfect masks at this resolution"),
    ]


def count_card(part: Part) -> Card:
    """Return the number of images scored."""
    cars = count_of(len({row[1] for row in part["scores"]}), "cars")
    return Card("Images scored", f"{len(part['scores']):,}", f"of {cars}")


def files() -> list[tuple[str, str]]:
    """Return links to the files of an evaluation."""
    names = "evaluation.csv", "evaluation.json", "sheets/worst.jpg"
    return [(name, name) for name in names]


def sections(part: Part) -> list[Section]:
    """Return the sections of an evaluation."""
    worst = ImageGrid(part["worst"], "wide", WORST_SHOWN)
    median = ImageGrid(part["median"], "wide")
    masks = {"worst": worst, "median": median}
    shown = [
        Section("worst", "Worst masks", "worst.html", masks),
        Section("dice", "Dice", "charts.html", _distribution(part["scores"])),
    ]
    if part["history"]:
        shown.append(Section("training", "Training", "charts.html", _training(part["history"])))
    return shown


def _dice_and_ceiling(scores: Scores) -> tuple[np.ndarray, float]:
    """Return the Dice of each image, and the mean of their highest possible Dice."""
    return np.array([row[3] for row in scores]), float(np.mean([row[4] for row in scores]))


def _distribution(scores: Scores) -> ChartsAndTables:
    cars, views = _groups(scores, 1), _groups(scores, 2)
    columns = [Column(name, "%.4f") for name in ("worst", "mean", "best")]
    by_view = Table("Dice by view", [Column("view", "%d"), *columns], views, sortable=True)
    by_car = Table("Dice by car", [Column("car"), *columns], cars, sortable=True)
    height = max(charts.height_of_ranges(min(len(cars), MAX_CARS)), charts.HEIGHT)
    height = max(height, charts.height_of_ranges(len(views)) if len(views) <= 16 else 0)
    return ChartsAndTables(
        [_histogram(scores, height), *_ranges(cars, views, height)],
        [
            ("Dice by view and by car as tables", [by_view, by_car]),
            ("Every image", [_score_table(scores)]),
        ],
    )


def _groups(scores: Scores, column: int) -> list[Range]:
    """Return (key, lowest, mean, highest) of the Dice of each car (column 1) or view (2)."""
    groups: dict[Any, list[float]] = {}
    for row in scores:
        groups.setdefault(row[column], []).append(row[3])
    return [
        (key, min(values), float(np.mean(values)), max(values))
        for key, values in sorted(groups.items())
    ]


def _histogram(scores: Scores, height: float) -> Chart:
    dice, ceiling = _dice_and_ceiling(scores)
    caption = f"Mean {dice.mean():.4f}, median {np.median(dice):.4f}. "
    if len(dice) >= charts.MIN_FOR_TAIL:
        caption += f"The first bar also holds all images below {np.quantile(dice, 0.01):.4f}. "
    caption += f"The dashed line is the ceiling, {ceiling:.4f}: the Dice of a network without "
    caption += "errors at this resolution."
    figure = charts.histogram(dice.tolist(), "Dice", ("ceiling", ceiling), height)
    return charts.to_chart(figure, "Images by Dice", caption)


def _ranges(cars: list[Range], views: list[Range], height: float) -> list[Chart]:
    caption = "The dot is the mean; the line reaches from the worst image to the best."
    hardest = sorted(cars, key=lambda row: row[2])[:MAX_CARS]
    shown = "" if len(cars) <= MAX_CARS else f" The {MAX_CARS} cars with the lowest mean are shown."
    by_car = charts.ranges(hardest, "Dice", height)
    plots = [charts.to_chart(by_car, "Dice by car", caption + shown)]
    if len(views) < 2:
        return plots
    rows = [(f"view {view}", low, mean, high) for view, low, mean, high in views]
    return [charts.to_chart(charts.ranges(rows, "Dice", height), "Dice by view", caption), *plots]


def _score_table(scores: Scores) -> Table:
    columns = [Column("image"), Column("car"), Column("view", "%d")]
    columns += [Column("Dice", "%.4f"), Column("ceiling", "%.4f")]
    columns += [Column("too much %", "%.2f"), Column("missed %", "%.2f")]
    rows = [(*row[:5], 100 * row[5], 100 * row[6]) for row in scores[:MAX_ROWS]]
    caption = f"{count_of(len(scores), 'images')}, the worst first"
    if len(scores) > MAX_ROWS:
        caption = f"The {MAX_ROWS:,} worst images; all {len(scores):,} are in evaluation.csv"
    return Table(caption, columns, rows, sortable=True)


def _training(history: History) -> ChartsAndTables:
    known = set().union(*history)
    best = max(history, key=lambda row: (row.get("val_dice", 0.0), row["epoch"]))
    plots = []
    for name in ("dice", "loss", "speed"):
        curve = CURVES[name]
        if known.isdisjoint(curve.columns):
            continue
        caption = curve.note
        if name == "dice" and "val_dice" in best:
            caption += (
                f" Best epoch: {best['epoch']}, with Dice {best['val_dice']:.4f} in validation."
            )
        plots.append(charts.to_chart(curve.draw(history), f"{curve.title} by epoch", caption))
    order = "loss", "dice", "accuracy", "val_loss", "val_dice", "val_accuracy"
    keys = [key for key in order if key in known]
    columns = [Column("epoch", "%d"), *(Column(key, "%.4f") for key in keys)]
    rows = [(row["epoch"], *(row.get(key, float("nan")) for key in keys)) for row in history]
    table = Table("Epochs of training", columns, rows)
    return ChartsAndTables(plots, [("Training as a table", [table])])
