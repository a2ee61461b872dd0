"""Contact sheets and figures, from images and masks in folders."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.report_parts import jpeg

from carvana_ray import rle
from carvana_ray.report import figures

SIZE = 80, 120


def rows_of(folder: Path, car: str, views: int, status: str = "ok") -> list[dict[str, Any]]:
    """Write the images of a car; return the rows of their masks: the left half."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[:, :60] = True
    rows = []
    for view in range(1, views + 1):
        name = f"{car}_{view:02d}.jpg"
        (folder / name).write_bytes(jpeg(view, *SIZE))
        row = {"img": name, "status": status, "height": SIZE[0], "width": SIZE[1]}
        rows.append(row | {"rle_mask": rle.encode(mask)})
    return rows


def test_a_sheet_has_the_readable_images_of_a_car_above_their_cut_outs(tmp_path: Path) -> None:
    cars = {"a": rows_of(tmp_path, "a", 9), "b": rows_of(tmp_path, "b", 1, "truncated")}
    (name, data), *others = figures.car_sheets(str(tmp_path), cars).items()
    assert (name, others) == ("a.jpg", [])
    page = Image.open(io.BytesIO(data))
    assert page.width >= figures.CAR_COLUMNS * figures.CAR_TILE_WIDTH
    assert page.height >= 4 * 160, "9 images are two rows of images and two of cut-outs"


@pytest.mark.parametrize(("cars", "views"), [(1, 16), (4, 16), (9, 2), (3, 1)])
def test_examples_are_as_many_of_each_car_and_readable(
    tmp_path: Path, cars: int, views: int
) -> None:
    rows = {f"c{n}": rows_of(tmp_path, f"c{n}", views) for n in range(cars)}
    rows["bad"] = rows_of(tmp_path, "bad", 1, "missing")
    picked = [row["img"] for row in figures.pick_rows(rows)]
    assert len(set(picked)) == len(picked) <= figures.EXAMPLE_FIGURES
    assert not any(name.startswith("bad") for name in picked)
    counts = {car: sum(name.startswith(f"{car}_") for name in picked) for car in rows}
    assert max(counts.values()) <= max(figures.EXAMPLE_FIGURES // (cars + 1), 1)


def test_figures_without_words_show_the_cut_out_car(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a", 2)
    plain = figures.unscored_figures(str(tmp_path), rows)
    assert [one["layers"][0]["key"] for one in plain] == ["cut", "cut"]
    assert "lines" not in plain[0]
    words = [figures.Caption(lines=[f"Score {n}"]) for n in range(2)]
    listed = figures.unscored_figures(str(tmp_path), rows, words)
    assert [one["layers"][0]["key"] for one in listed] == ["outline", "outline"]
    assert [one["lines"] for one in listed] == [["Score 0"], ["Score 1"]]


def test_scored_images_are_compared_with_their_true_masks(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "a", 1)
    Image.new("L", SIZE[::-1], 255).save(tmp_path / "true.gif")
    score = row | {"dice": 2 / 3, "ceiling": 0.99, "more": 0.0, "less": 0.5}
    arguments = str(tmp_path), str(tmp_path), {row["img"]: "true.gif"}, [score]
    (figure,) = figures.scored_figures(*arguments)
    assert figure["lines"] == [
        "Dice 0.6667; 0.9900 is possible at this resolution",
        "Too much: 0.00% of the car. Missed: 50.00%.",
    ]
    assert figure["close"]["width"] == SIZE[1]
    page = np.asarray(Image.open(io.BytesIO(figures.worst_sheet(*arguments)))).astype(int)
    blue = (page[..., 2] - page[..., 0] > 120).mean(0)
    assert blue[: page.shape[1] // 2 - 10].max() < 0.05
    assert blue[page.shape[1] // 2 + 10 : -10].min() > 0.3, "the missed half is blue"
