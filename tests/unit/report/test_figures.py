"""Contact sheets and figures, from images and masks in folders."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.report_parts import jpeg

from carvana_ray import rle
from carvana_ray.cutouts import compositing
from carvana_ray.images import turns
from carvana_ray.report import figures
from carvana_ray.report.cutout_figure import crop_box

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


@pytest.mark.parametrize(("cars", "views"), [(1, 16), (4, 16), (9, 2), (3, 16), (2, 1)])
def test_examples_are_about_as_many_of_each_car_and_readable(
    tmp_path: Path, cars: int, views: int
) -> None:
    rows = {"bad": rows_of(tmp_path, "bad", 1, "missing")}
    rows |= {f"c{n}": rows_of(tmp_path, f"c{n}", views) for n in range(cars)}
    picked = [row["img"] for row in figures.pick_rows(rows)]
    assert len(set(picked)) == len(picked) == min(figures.EXAMPLE_FIGURES, cars * views)
    counts = [sum(name.startswith(f"c{n}_") for name in picked) for n in range(min(cars, 4))]
    assert sum(counts) == len(picked)
    assert max(counts) - min(counts) <= 1
    if views == 16:
        assert len({name[-6:] for name in picked}) == 4, "no view twice"


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_turned_file_has_the_figures_of_an_upright_one(tmp_path: Path, turn: int) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    upright = upright.repeat(10, 0).repeat(10, 1)
    mask = np.tri(*upright.shape[:2], k=20, dtype=bool)
    made = []
    for orientation in (1, turn):
        folder = tmp_path / str(orientation)
        folder.mkdir()
        stored, stored_mask = (
            np.ascontiguousarray(turns.to_stored(pixels, orientation)) for pixels in (upright, mask)
        )
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(folder / "a.png", exif=exif)
        Image.fromarray(mask).save(folder / "true.png")  # people draw masks upright
        row = {"img": "a.png", "height": stored.shape[0], "width": stored.shape[1]}
        row |= {"rle_mask": rle.encode(stored_mask), "dice": 1.0, "ceiling": 1.0}
        row |= {"more": 0.0, "less": 0.0}
        scored = figures.scored_figures(str(folder), str(folder), {"a.png": "true.png"}, [row])
        plain = figures.unscored_figures(str(folder), [row])
        made.append([*scored, *plain, *figures.cutout_figures(str(folder), [row], {})])
    assert made[0] == made[1]


def test_a_cut_out_is_what_cutout_writes(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a", 2)
    soft_mask = np.zeros((SIZE[0] // 4, SIZE[1] // 4), dtype=np.uint8)
    soft_mask[:, :10], soft_mask[:, 10] = 255, 128
    shown = figures.cutout_figures(str(tmp_path), rows, {rows[0]["img"]: soft_mask})
    assert [one["layers"][0]["key"] for one in shown] == ["cut", "cut"]
    alphas = []
    for one in shown:
        data = base64.b64decode(one["layers"][0]["src"].split(",")[1])
        alphas.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3])
    style = compositing.CutoutStyle(True, None, "png", mask_only=False)
    image = (tmp_path / rows[0]["img"]).read_bytes()
    written = Image.open(io.BytesIO(compositing.render(image, style, soft_mask)))
    box = crop_box((0, 0, 42, SIZE[0]), *written.size)
    expected = written.getchannel("A").resize(alphas[0].shape[::-1], Image.Resampling.BOX, box)
    assert np.abs(np.asarray(expected).astype(int) - alphas[0]).max() <= 2
    assert len(np.unique(alphas[0])) > 4, "soft edges"
    assert len(np.unique(alphas[1])) == 2, "without a soft mask they are hard"


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
