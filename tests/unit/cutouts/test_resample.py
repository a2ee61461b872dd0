"""Placements are exact to a fraction of a pixel, and no color of the background gets to the car."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.cutouts.resample import Placement, move

Pixels = NDArray[np.uint8]
SCALES = [0.11, 0.4, 0.83, 1.0, 1.37, 3.2]


def car(height: int, width: int, color: int, around: int) -> tuple[Image.Image, Pixels]:
    """Return an image of a soft ellipse of one gray level before another, and its alpha."""
    y, x = np.mgrid[:height, :width] + 0.5
    radius = np.hypot((y / height - 0.5) * 2.4, (x / width - 0.5) * 2.4)
    alpha = ((1 - radius) * min(height, width) / 4 * 255 + 128).clip(0, 255).astype(np.uint8)
    levels = np.where(alpha > 0, color, around).astype(np.uint8)
    return Image.fromarray(np.dstack([levels] * 3)), alpha


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 4), st.floats(-10, 40), st.floats(-10, 40))
def test_a_ramp_of_colors_is_where_the_placement_says(
    scale: float, left: float, top: float
) -> None:
    ramp = np.broadcast_to(np.arange(20, 220, dtype=np.uint8), (180, 200))
    image = Image.fromarray(np.dstack([ramp, np.full_like(ramp, 7), ramp]))
    down = Image.fromarray(np.asarray(image).transpose(1, 0, 2)[:180].copy())
    size = 260, 240
    reach = 2 * max(1 / scale, 1) + 1  # near the image's border there is nothing to blend with
    for axis, source in ((0, image), (1, down)):
        alpha = np.full((source.height, source.width), 255, np.uint8)
        moved, opacity = move(source, alpha, Placement(scale, left, top, size))
        offset, length = ((left, source.width), (top, source.height))[axis]
        place = (np.arange(size[axis]) + 0.5 - offset) / scale  # of the pixels' centers
        inside = (place > reach) & (place < length - reach)
        levels = np.asarray(moved)[..., 0].astype(float)
        lines = levels if axis == 0 else levels.T
        full = (opacity if axis == 0 else opacity.T) == 255
        for line, row in zip(lines[::17], full[::17], strict=True):
            seen = inside & row
            assert np.abs(line[seen] - (place[seen] - 0.5 + 20)).max(initial=0) <= 0.75


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("color", "around"), [(12, 255), (243, 0), (128, 255), (128, 0), (255, 0)])
def test_edges_have_no_halo(scale: float, color: int, around: int) -> None:
    """Where a pixel is visible it has the color of the car, however the filter overshoots."""
    image, alpha = car(120, 200, color, around)
    moved, opacity = move(image, alpha, Placement(scale, 3.3, 5.6, (700, 420)))
    visible = opacity >= 1
    assert visible.any()
    assert np.abs(np.asarray(moved)[visible].astype(int) - color).max() <= 1


@pytest.mark.parametrize("scale", SCALES)
def test_the_inside_of_a_car_stays_opaque(scale: float) -> None:
    alpha = np.zeros((120, 200), np.uint8)
    alpha[20:100, 30:170] = 255
    _, opacity = move(Image.new("RGB", (200, 120)), alpha, Placement(scale, 0.4, 0.7, (700, 420)))
    reach = 2 * max(1, scale)
    rows = slice(int(20 * scale + reach) + 2, max(0, int(100 * scale - reach) - 1))
    columns = slice(int(30 * scale + reach) + 2, max(0, int(170 * scale - reach) - 1))
    assert (opacity[rows, columns] == 255).all()


@pytest.mark.parametrize("scale", [0.4, 0.83, 3.2])
def test_a_smaller_picture_is_a_part_of_a_larger_one(scale: float) -> None:
    """Pixels do not depend on where the picture ends, nor on how far from the car some alpha is."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    alpha = np.zeros((60, 80), np.uint8)
    alpha[20:40, 20:60] = 255
    whole, opacity = move(image, alpha, Placement(scale, 0.3, 0.6, (260, 200)))
    x, y = int(27 * scale), int(29 * scale)
    size = int(20 * scale), int(8 * scale)
    part, inside = move(image, alpha, Placement(scale, 0.3 - x, 0.6 - y, size))
    box = x, y, x + size[0], y + size[1]
    assert np.abs(np.subtract(np.asarray(whole.crop(box), int), part)).max() <= 1
    assert np.array_equal(opacity[y : y + size[1], x : x + size[0]], inside)
    alpha[[0, -1], [0, -1]] = 1
    _, wider = move(image, alpha, Placement(scale, 0.3, 0.6, (260, 200)))
    assert np.abs(np.subtract(wider, opacity, dtype=int)).max() <= 1


def test_whole_steps_at_scale_1_keep_all_pixels() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    moved, opacity = move(Image.fromarray(pixels), alpha, Placement(1, 5, -4, (40, 25)))
    assert np.array_equal(np.asarray(moved)[:16, 5:35], pixels[4:])
    assert np.array_equal(opacity[:16, 5:35], alpha[4:])
    assert opacity.sum() == alpha[4:].sum(), "alpha is 0 outside the image"


def test_half_a_pixel_is_half_a_pixel() -> None:
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 255
    _, opacity = move(Image.new("RGB", (8, 8)), alpha, Placement(1, 0.5, 0, (9, 9)))
    assert opacity[4].tolist() == [0, 0, 128, 255, 255, 255, 128, 0, 0]
