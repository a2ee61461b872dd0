"""Loss, accuracy and Dice of a training run as PNG files, for those who want them by themselves."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_CURVES = {
    "loss": ("loss", "cross entropy / 2 - Dice + 1", ("loss",)),
    "accuracy": ("accuracy", "share of pixels, network resolution", ("accuracy",)),
    "dice": ("Dice", "network resolution", ("dice", "soft_dice")),
}


def draw_curves(history: Sequence[Mapping[str, float]]) -> dict[str, bytes]:
    """Return ``loss.png``, ``accuracy.png`` and ``dice.png`` of a history, a row an epoch."""
    epochs = [row["epoch"] for row in history]
    files = {}
    for file, (title, unit, keys) in _CURVES.items():
        figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
        axes = figure.add_subplot(xlabel="epoch", ylabel=unit, title=title)
        for key in keys:
            for prefix, kind, style in (("", "training", "o--"), ("val_", "validation", "o-")):
                if any(prefix + key in row for row in history):
                    values = [row.get(prefix + key, np.nan) for row in history]
                    label = f"{kind}, soft" if key.startswith("soft") else kind
                    axes.plot(epochs, values, style, label=label, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        files[f"{file}.png"] = buffer.getvalue()
    return files
