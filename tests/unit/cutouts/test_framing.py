"""Cars stand where the frame says, in all sizes, margins and positions; nothing else is visible."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from carvana_ray import rle
from carvana_ray.cutouts.compositing import CutoutStyle, render
from carvana_ray.cutouts.framing import FLOOR, Box, Frame, car_box, drop_strays, frame_car
from carvana_ray.errors import BadImageError, InputError

Pixels = NDArray[np.uint8]
LARGEST = 6  # scale; at a corner the filter overshoots, by up to a tenth of a pixel of the image
CATALOGUE = Frame("catalogue", (160, 120), 0.05)


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> Pixels:
    """Return alpha, 255 in a box of left, top, right, bottom."""
    alpha = np.zeros((height, width), np.uint8)
    alpha[box[1] : box[3], box[0] : box[2]] = 255
    return alpha


def measured(alpha: Pixels) -> Box:
    """Return the box of alpha, by its rows and columns."""
    mask = alpha >= 128
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def framed(alpha: Pixels, frame: Frame, extent: tuple[int, int] | None = None) -> Pixels:
    image = Image.new("RGB", alpha.shape[::-1], (9, 9, 9))
    picture, result = frame_car(image, alpha, frame, extent)
    assert picture.size == result.shape[::-1]
    return result


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    """Draw the height and width of an image, and a box in it, often at its border."""
    height, width = draw(st.integers(8, 90)), draw(st.integers(8, 120))
    left, top = draw(st.integers(0, width - 4)), draw(st.integers(0, height - 4))
    right, bottom = draw(st.integers(left + 4, width)), draw(st.integers(top + 4, height))
    return height, width, (left, top, right, bottom)


sizes = st.tuples(st.integers(30, 300), st.integers(30, 300))
margins = st.floats(0, 0.4)


@settings(max_examples=150, deadline=None)
@given(boxes(), sizes, margins, st.sampled_from(["car", "catalogue"]))
def test_the_box_is_where_it_was_asked_for(image: Any, size: Any, margin: float, kind: Any) -> None:
    edge = round(margin * size[0])
    room = size[0] - 2 * edge, (round(FLOOR * size[1]) if kind == "catalogue" else size[1] - edge)
    room = room[0], room[1] - edge
    left, top, right, bottom = image[2]
    scale = min(room[0] / (right - left), room[1] / (bottom - top)) if min(room) > 0 else 0
    assume(scale * min(right - left, bottom - top) >= 2)  # else it may be too thin to be seen
    assume(scale <= LARGEST)
    box = measured(framed(rectangle(*image), Frame(kind, size, margin)))
    assert abs((box.left + box.right) / 2 - size[0] / 2) <= 1
    if kind == "catalogue":
        assert abs(box.bottom - round(FLOOR * size[1])) <= 1
    else:
        assert abs((box.top + box.bottom) / 2 - size[1] / 2) <= 1
    assert box.left >= edge - 1
    assert box.top >= edge - 1
    gaps = room[0] - box.size[0], room[1] - box.size[1]
    assert abs(min(gaps)) <= 2, "it fills the room in one direction: one pixel on each side"
    assert abs(box.size[0] * (bottom - top) - box.size[1] * (right - left)) <= 2 * (
        right - left + bottom - top
    ), "it keeps its shape"


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes(), min_size=16, max_size=16), sizes)
def test_views_with_one_extent_have_one_scale(views: Any, size: tuple[int, int]) -> None:
    frame = Frame("catalogue", size, 0.05)
    corners = [Box(*box) for _, _, box in views]
    extent = max(box.size[0] for box in corners), max(box.size[1] for box in corners)
    scales = {frame.place(box, extent).scale for box in corners}
    assert len(scales) == 1
    scale = scales.pop()
    for view, box in zip(views, corners, strict=True):
        if scale * min(box.size) < 2 or scale > LARGEST:
            continue
        found = measured(framed(rectangle(*view), frame, extent))
        width, height = scale * box.size[0], scale * box.size[1]
        left, bottom = (size[0] - width) / 2, round(FLOOR * size[1])
        asked = left, bottom - height, left + width, bottom
        assert np.abs(np.subtract(found, asked)).max() <= 1


@settings(max_examples=60, deadline=None)
@given(boxes(), margins)
def test_a_crop_keeps_all_pixels_and_has_the_margin(image: Any, margin: float) -> None:
    height, width, (left, top, right, bottom) = image
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture, alpha = frame_car(
        Image.fromarray(pixels), rectangle(*image), Frame("car", None, margin)
    )
    box = measured(alpha)
    edge = round(margin * picture.width)
    assert abs(box.left - edge) <= 1
    assert box == Box(box.left, box.left, picture.width - box.left, picture.height - box.left)
    assert box.size == (right - left, bottom - top)
    assert np.array_equal(np.asarray(picture.crop(box)), pixels[top:bottom, left:right])


@pytest.mark.parametrize("frame", [CATALOGUE, Frame("car", None, 0.1), Frame("car", (90, 90), 0)])
@pytest.mark.parametrize("gap", [2, 9, 30])
def test_a_stray_piece_moves_nothing_and_is_not_visible(frame: Frame, gap: int) -> None:
    clean = rectangle(100, 200, (40, 30, 120, 80))
    clean[29, 40:120] = clean[80, 40:120] = 60  # soft edges
    dirty = clean.copy()
    dirty[40:45, 120 + gap : 125 + gap] = 255
    dirty[39, 120 + gap : 125 + gap] = dirty[45, 120 + gap : 125 + gap] = 100
    expected, result = framed(clean, frame), framed(dirty, frame)
    assert expected.shape == result.shape
    if gap > 2:
        assert np.array_equal(result, expected)
    assert np.array_equal(result >= 128, expected >= 128)


def test_a_second_car_is_no_stray_piece() -> None:
    alpha = rectangle(60, 100, (10, 10, 60, 50))
    alpha[20:30, 80:90] = 255
    kept, box = drop_strays(alpha)
    assert kept is alpha
    assert box == (10, 10, 90, 50)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_box_from_runs_is_that_of_the_picture(seed: int) -> None:
    alpha = np.random.default_rng(seed).integers(0, 256, (30, 40), dtype=np.uint8)
    kept, box = drop_strays(alpha)
    assert car_box(*rle.mask_to_runs(alpha >= 128), 40) == box
    assert not box or box == measured(kept)


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (CATALOGUE, (160, 120)),
        (Frame("car", None, 0.1), (50, 40)),
        (Frame("car", (9, 7), 0), (9, 7)),
    ],
)
@pytest.mark.parametrize("background", [None, (1, 2, 3)])
def test_without_a_car_the_frame_is_empty(frame: Frame, size: Any, background: Any) -> None:
    style = CutoutStyle(True, background, "png", False, frame)
    result = opened(
        render(file_of(Image.new("RGB", (50, 40), "red")), style, mask=no_car((40, 50)))
    )
    assert result.size == size
    assert set(result.get_flattened_data()) == {background or (0, 0, 0, 0)}


def no_car(shape: tuple[int, int]) -> NDArray[np.bool_]:
    return np.zeros(shape, np.bool_)


def file_of(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("frame", [CATALOGUE, Frame("car", None, 0.1), Frame("car", (90, 50), 0.2)])
def test_the_frame_is_that_of_the_upright_image(turn: int, frame: Frame) -> None:
    """It equals the frame of an image that was turned before it was stored."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    mask = rectangle(40, 60, (10, 5, 50, 17)) > 0
    tagged = opened(file_of(stored, exif=exif))
    upright = ImageOps.exif_transpose(tagged)
    marked = Image.fromarray(mask.astype(np.uint8))
    marked.getexif()[ExifTags.Base.Orientation] = turn
    upright_mask = np.asarray(ImageOps.exif_transpose(marked)) > 0
    style = CutoutStyle(False, None, "png", False, frame)
    expected = render(file_of(upright), style, mask=upright_mask)
    assert render(file_of(stored, exif=exif), style, mask=mask) == expected


def test_a_margin_without_room_names_the_flags() -> None:
    with pytest.raises(InputError, match=r"--size 1600x300, --margin 0\.4: leave no room"):
        Frame("car", (1600, 300), 0.4)
    Frame("car", (1600, 1300), 0.4)
    with pytest.raises(InputError, match="leave no room"):
        Frame("catalogue", (1600, 800), 0.4)


def test_a_crop_with_too_many_pixels_is_a_bad_image() -> None:
    frame = Frame("car", None, 0.4)
    with pytest.raises(BadImageError, match=r"too-large: 10000 x 9000 pixels .* use --size"):
        frame.place(Box(0, 0, 2000, 1000))
