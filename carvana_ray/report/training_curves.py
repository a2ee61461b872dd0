"""Loss, Dice, accuracy and speed by epoch: charts of the page, and PNG files of the first three."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from carvana_ray.report import charts

LEAST_ERROR = 1e-5  # a value of 1 has no place on a logarithmic axis

History = Sequence[Mapping[str, float]]


class Curve(NamedTuple):
    """A chart by epoch: its title, its unit, columns of the history, and a remark.

    With `error` it shows 1 - value on a logarithmic axis: near 1 all values would look alike.
    """

    title: str
    unit: str
    columns: tuple[str, ...]
    note: str = ""
    error: bool = False

    def draw(self, history: History, title: str = "") -> Figure:
        """Return the chart of the values that a history has, for training and validation."""
        series = []
        for column in self.columns:
            for prefix, kind in (("", "training"), ("val_", "validation")):
                name = f"{kind}, soft" if column.startswith("soft") else kind
                key = prefix + column
                if points := [
                    (row["epoch"], self._value(row[key])) for row in history if key in row
                ]:
                    series.append((name, points))
        return charts.lines(series, "epoch", self.unit, title, log=self.error)

    def _value(self, value: float) -> float:
        return max(1 - value, LEAST_ERROR) if self.error else value


CURVES = {
    "loss": Curve(
        "Loss",
        "cross entropy / 2 - Dice + 1",
        ("loss",),
        "Lower is better. Training may count pixels near the boundary several times.",
    ),
    "dice": Curve(
        "1 - Dice",
        "1 - Dice, log scale",
        ("dice", "soft_dice"),
        "At network resolution; lower is better. Soft: before the threshold.",
        error=True,
    ),
    "accuracy": Curve(
        "1 - accuracy", "fraction of wrong pixels, log scale", ("accuracy",), error=True
    ),
    "speed": Curve(
        "Speed", "images per second", ("images_per_second",), "First batches do not count."
    ),
}


def draw_curves(history: History) -> dict[str, bytes]:
    """Return ``loss.png``, ``accuracy.png`` and ``dice.png`` of a history, a row an epoch."""
    files = {}
    for name in ("loss", "accuracy", "dice"):
        figure = CURVES[name].draw(history, f"{CURVES[name].title} by epoch")
        files[f"{name}.png"] = charts.to_png(figure)
    return files
