"""Contact sheets: sizes of images, cut-outs, errors in their colors."""

import io

import numpy as np
import pytest
from PIL import Image

from carvana_ray.images import turns
from carvana_ray.report import contact_sheet

GRAY = np.full((40, 60, 3), 100, dtype=np.uint8)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def half(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : width // 2] = True
    return mask


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("size", "shape"), [((1918, 1280), (160, 240, 3)), ((50, 1), (5, 240, 3))])
def test_a_thumbnail_has_the_requested_width_and_the_colors(
    kind: str, size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 40, 90)).save(buffer, kind, quality=95)
    image = contact_sheet.load_upright(buffer.getvalue(), 240)
    assert image.shape == shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_a_thumbnail_is_in_color_whatever_the_mode(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (30, 20)).save(buffer, "PNG" if mode != "CMYK" else "JPEG")
    assert contact_sheet.load_upright(buffer.getvalue(), 15).shape == (10, 15, 3)


def test_fractions_of_whole_blocks_are_their_means() -> None:
    mask = np.random.default_rng(0).random((24, 36)) < 0.4
    fraction = contact_sheet.coverage(mask, 6, 9)
    exact = mask.reshape(6, 4, 9, 4).mean(axis=(1, 3))
    assert fraction.dtype == np.float32
    assert np.abs(fraction - exact).max() <= 1 / 255


def test_fractions_of_broken_blocks_keep_the_fraction_of_the_whole() -> None:
    mask = np.random.default_rng(1).random((25, 37)) < 0.4
    fraction = contact_sheet.coverage(mask, 6, 9)
    assert fraction.shape == (6, 9)
    assert abs(float(fraction.mean()) - mask.mean()) < 0.02


def test_a_cut_out_keeps_the_car_and_puts_a_board_behind_it() -> None:
    image = contact_sheet.overlay_checkerboard(GRAY, half(80, 120))
    assert image.shape == GRAY.shape
    assert image.dtype == np.uint8
    assert (image[:, :30] == 100).all()
    assert set(np.unique(image[:, 30:]).tolist()) == {205, 235}
    assert image[0, 32, 0] != image[8, 32, 0]
    assert image[0, 32, 0] != image[0, 40, 0]


def test_the_image_that_was_given_stays_as_it_is() -> None:
    before = GRAY.copy()
    contact_sheet.overlay_checkerboard(GRAY, half(80, 120))
    contact_sheet.overlay_errors(GRAY, half(80, 120), ~half(80, 120))
    assert np.array_equal(GRAY, before)


def test_wrong_pixels_are_red_and_missed_ones_blue() -> None:
    truth = half(80, 120)
    mask = truth.copy()
    mask[:20, 80:] = True  # too much
    mask[60:, :40] = False  # too little
    image = contact_sheet.overlay_errors(GRAY, mask, truth)
    assert tuple(image[2, 55]) == (230, 40, 40)
    assert tuple(image[38, 5]) == (40, 110, 255)
    right = np.ones((40, 60), dtype=bool)
    right[:10, 40:] = right[30:, :20] = False
    assert (image[right] == 100).all()


def test_a_perfect_mask_is_a_gray_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    shown = contact_sheet.overlay_errors(image, half(80, 120), half(80, 120))
    assert (shown == shown[..., :1]).all()
    assert np.abs(shown[..., 0] - image.mean(-1)).max() <= 1


def test_one_wrong_pixel_of_a_block_can_be_seen() -> None:
    truth = np.zeros((320, 480), dtype=bool)
    mask = truth.copy()
    mask[163, 245] = True
    shown = contact_sheet.overlay_errors(GRAY, mask, truth).astype(int)
    assert shown[20, 30, 0] - shown[20, 30, 1] > 60
    assert (np.abs(shown - 100).max(-1) > 0).sum() == 1


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 3, 1), (3, 3, 1), (4, 3, 2), (7, 2, 4)])
def test_a_sheet_holds_all_its_tiles(count: int, columns: int, rows: int) -> None:
    tiles = [(f"tile {n}", np.full((40, 60, 3), 20 + 30 * n, np.uint8)) for n in range(count)]
    lines = [tiles[at : at + columns] for at in range(0, count, columns)]
    page = opened(contact_sheet.render_sheet(lines, "title"))
    assert page.format == "JPEG"
    assert page.width >= min(count, columns) * 60
    assert page.height >= rows * 40
    gray = np.asarray(page.convert("L")).astype(int)
    centers = []
    for number in range(count):
        near = np.abs(gray - (20 + 30 * number)) <= 3
        down, right = np.flatnonzero(near.sum(1) > 50), np.flatnonzero(near.sum(0) > 30)
        assert 30 < len(down) <= 40, number  # the outermost pixels may ring: it is a JPEG
        assert 50 < len(right) <= 60, number
        centers.append((down.mean(), right.mean()))
    for number, (down, right) in enumerate(centers):
        place = (round((down - centers[0][0]) / 70), round((right - centers[0][1]) / 66))
        assert place == divmod(number, columns)


def test_a_row_without_captions_is_close_to_the_row_above() -> None:
    tile = ("", np.zeros((40, 60, 3), np.uint8))
    plain = opened(contact_sheet.render_sheet([[tile], [tile]], "t")).height
    named = opened(contact_sheet.render_sheet([[("name", tile[1])], [tile]], "t")).height
    assert named - plain == 24
    assert plain <= 48 + 2 * (40 + 6)


@pytest.mark.parametrize("turn", range(1, 9))
def test_images_and_masks_are_shown_upright(turn: int) -> None:
    upright = np.random.default_rng(turn).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    stored = np.ascontiguousarray(turns.to_stored(upright, turn))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    assert np.array_equal(contact_sheet.load_upright(buffer.getvalue()), upright)
    assert contact_sheet.load_upright(buffer.getvalue(), 10).shape == (15, 10, 3)
    mask = contact_sheet.turn_upright(buffer.getvalue(), stored[..., 0] > 99)
    assert np.array_equal(mask, upright[..., 0] > 99)


def test_a_long_caption_ends_before_the_next_tile() -> None:
    tiles = [("w" * 255, np.zeros((40, 60, 3), np.uint8)), ("", np.zeros((40, 60, 3), np.uint8))]
    page = np.asarray(opened(contact_sheet.render_sheet([tiles], "t")).convert("L"))
    captions = page[48:72]
    assert captions[:, 6:66].min() < 100
    assert captions[:, 74:].min() > 200
