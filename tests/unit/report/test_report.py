"""Pictures for people: of the sizes asked for, errors in their colours; curves."""

import io

import numpy as np
import pytest
from PIL import Image

from carvana_ray import report

HISTORY = [
    {
        "epoch": epoch,
        **{f"{p}{key}": 1 / epoch for p in ("", "val_") for key in ("loss", "accuracy", "dice")},
        "soft_dice": 0.5,
    }
    for epoch in (1, 2, 3)
]
GRAY = np.full((40, 60, 3), 100, dtype=np.uint8)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def half(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : width // 2] = True
    return mask


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_curves_are_three_pngs(epochs: int) -> None:
    files = report.draw_curves(HISTORY[:epochs])
    assert sorted(files) == ["accuracy.png", "dice.png", "loss.png"]
    for data in files.values():
        image = opened(data)
        assert (image.format, image.size) == ("PNG", (720, 480))
    assert len(set(files.values())) == 3


def test_a_curve_shows_the_numbers_of_its_history() -> None:
    other = [{**row, "val_loss": 0.9} for row in HISTORY]
    files, changed = report.draw_curves(HISTORY), report.draw_curves(other)
    assert files["loss.png"] != changed["loss.png"]
    assert files["dice.png"] == changed["dice.png"]


def test_a_history_without_validation_still_has_curves() -> None:
    history = [{"epoch": 1, "loss": 0.5, "accuracy": 0.9, "dice": 0.8}, {"epoch": 2, "loss": 0.4}]
    assert len(report.draw_curves(history)) == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("size", "shape"), [((1918, 1280), (160, 240, 3)), ((50, 1), (5, 240, 3))])
def test_a_thumbnail_has_the_width_asked_for_and_the_colours(
    kind: str, size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 40, 90)).save(buffer, kind, quality=95)
    picture = report.load_thumbnail(buffer.getvalue(), 240)
    assert picture.shape == shape
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_a_thumbnail_is_in_colour_whatever_the_mode(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (30, 20)).save(buffer, "PNG" if mode != "CMYK" else "JPEG")
    assert report.load_thumbnail(buffer.getvalue(), 15).shape == (10, 15, 3)


def test_shares_of_whole_blocks_are_their_means() -> None:
    mask = np.random.default_rng(0).random((24, 36)) < 0.4
    share = report.coverage(mask, 6, 9)
    exact = mask.reshape(6, 4, 9, 4).mean(axis=(1, 3))
    assert share.dtype == np.float32
    assert np.abs(share - exact).max() <= 1 / 255


def test_shares_of_broken_blocks_keep_the_share_of_the_whole() -> None:
    mask = np.random.default_rng(1).random((25, 37)) < 0.4
    share = report.coverage(mask, 6, 9)
    assert share.shape == (6, 9)
    assert abs(float(share.mean()) - mask.mean()) < 0.02


def test_a_cut_out_keeps_the_car_and_puts_a_board_behind_it() -> None:
    picture = report.overlay_checkerboard(GRAY, half(80, 120))
    assert picture.shape == GRAY.shape
    assert picture.dtype == np.uint8
    assert (picture[:, :30] == 100).all()
    assert set(np.unique(picture[:, 30:]).tolist()) == {205, 235}
    assert picture[0, 32, 0] != picture[8, 32, 0]
    assert picture[0, 32, 0] != picture[0, 40, 0]


def test_the_picture_that_was_given_stays_as_it_is() -> None:
    before = GRAY.copy()
    report.overlay_checkerboard(GRAY, half(80, 120))
    report.overlay_errors(GRAY, half(80, 120), ~half(80, 120))
    assert np.array_equal(GRAY, before)


def test_wrong_pixels_are_red_and_missed_ones_blue() -> None:
    truth = half(80, 120)
    mask = truth.copy()
    mask[:20, 80:] = True  # too much
    mask[60:, :40] = False  # too little
    picture = report.overlay_errors(GRAY, mask, truth)
    assert tuple(picture[2, 55]) == (230, 40, 40)
    assert tuple(picture[38, 5]) == (40, 110, 255)
    right = np.ones((40, 60), dtype=bool)
    right[:10, 40:] = right[30:, :20] = False
    assert (picture[right] == 100).all()


def test_a_perfect_mask_is_a_gray_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    shown = report.overlay_errors(picture, half(80, 120), half(80, 120))
    assert (shown == shown[..., :1]).all()
    assert np.abs(shown[..., 0] - picture.mean(-1)).max() <= 1


def test_one_wrong_pixel_of_a_block_can_be_seen() -> None:
    truth = np.zeros((320, 480), dtype=bool)
    mask = truth.copy()
    mask[163, 245] = True
    shown = report.overlay_errors(GRAY, mask, truth).astype(int)
    assert shown[20, 30, 0] - shown[20, 30, 1] > 60
    assert (np.abs(shown - 100).max(-1) > 0).sum() == 1


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 3, 1), (3, 3, 1), (4, 3, 2), (7, 2, 4)])
def test_a_sheet_holds_all_its_tiles(count: int, columns: int, rows: int) -> None:
    tiles = [(f"tile {n}", np.full((40, 60, 3), 20 + 30 * n, np.uint8)) for n in range(count)]
    lines = [tiles[at : at + columns] for at in range(0, count, columns)]
    page = opened(report.render_sheet(lines, "title"))
    assert page.format == "JPEG"
    assert page.width >= min(count, columns) * 60
    assert page.height >= rows * 40
    gray = np.asarray(page.convert("L")).astype(int)
    centres = []
    for number in range(count):
        near = np.abs(gray - (20 + 30 * number)) <= 3
        down, right = np.flatnonzero(near.sum(1) > 50), np.flatnonzero(near.sum(0) > 30)
        assert 30 < len(down) <= 40, number  # the outermost pixels may ring: it is a JPEG
        assert 50 < len(right) <= 60, number
        centres.append((down.mean(), right.mean()))
    for number, (down, right) in enumerate(centres):
        place = (round((down - centres[0][0]) / 60), round((right - centres[0][1]) / 64))
        assert place == divmod(number, columns)
