"""Training curves: three PNG files that show the history."""

import io

import pytest
from PIL import Image

from carvana_ray.report.training_curves import CURVES, LEAST_ERROR, draw_curves

HISTORY = [
    {
        "epoch": epoch,
        **{f"{p}{key}": 1 / epoch for p in ("", "val_") for key in ("loss", "accuracy", "dice")},
        "soft_dice": 0.5,
    }
    for epoch in (1, 2, 3)
]


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_curves_are_three_pngs(epochs: int) -> None:
    files = draw_curves(HISTORY[:epochs])
    assert sorted(files) == ["accuracy.png", "dice.png", "loss.png"]
    for data in files.values():
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == ("PNG", (720, 480))
    assert len(set(files.values())) == 3


def test_a_curve_shows_the_numbers_of_its_history() -> None:
    other = [{**row, "val_loss": 0.9} for row in HISTORY]
    files, changed = draw_curves(HISTORY), draw_curves(other)
    assert files["loss.png"] != changed["loss.png"]
    assert files["dice.png"] == changed["dice.png"]


def test_a_history_without_validation_still_has_curves() -> None:
    history = [{"epoch": 1, "loss": 0.5, "accuracy": 0.9, "dice": 0.8}, {"epoch": 2, "loss": 0.4}]
    assert len(draw_curves(history)) == 3


def test_a_chart_has_a_line_for_each_column_that_the_history_has() -> None:
    (axes,) = CURVES["dice"].draw(HISTORY).axes
    names = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert sorted(names) == ["training", "training, soft", "validation"]
    errors = [max(1 - row["val_dice"], LEAST_ERROR) for row in HISTORY]
    assert list(names["validation"]) == errors
    assert axes.get_yscale() == "log"
