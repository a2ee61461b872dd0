"""Loss, Dice, accuracy and speed by epoch: charts of the page, and PNG files of the first three."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from carvana_ray.report import charts

History = Sequence[Mapping[str, float]]


class Curve(NamedTuple):
    """A chart by epoch: its title, its unit, columns of the history, and a remark."""

    title: str
    unit: str
    columns: tuple[str, ...]
    note: str = ""

    def draw(self, history: History, y_label: str = "", title: str = "") -> Figure:
        """Return the chart of the values that a history has, for training and validation."""
        series = []
        for column in self.columns:
            for prefix, kind in (("", "training"), ("val_", "validation")):
                name = f"{kind}, soft" if column.startswith("soft") else kind
                key = prefix + column
                if points := [(row["epoch"], row[key]) for row in history if key in row]:
                    series.append((name, points))
        return charts.lines(series, "epoch", y_label, title)


CURVES = {
    "loss": Curve("Loss", "cross entropy / 2 - Dice + 1", ("loss",), "Lower is better."),
    "dice": Curve(
        "Dice", "at network resolution", ("dice", "soft_dice"), "Soft: before the threshold."
    ),
    "accuracy": Curve("Accuracy", "fraction of correct pixels, network resolution", ("accuracy",)),
    "speed": Curve(
        "Speed", "images per second", ("images_per_second",), "First batches do not count."
    ),
}


def draw_curves(history: History) -> dict[str, bytes]:
    """Return ``loss.png``, ``accuracy.png`` and ``dice.png`` of a history, a row an epoch."""
    files = {}
    for name in ("loss", "accuracy", "dice"):
        figure = CURVES[name].draw(history, CURVES[name].unit, CURVES[name].title)
        files[f"{name}.png"] = charts.to_png(figure)
    return files
