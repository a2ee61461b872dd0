"""Turning by EXIF orientation, against Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from carvana_ray.images import turns

TURNS = range(1, 9)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (4, 4)])
def test_pixels_are_turned_as_pillow_turns_them(turn: int, shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = turn
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(turns.to_upright(pixels, turn), expected)
    assert turns.turned_size(*shape[:2], turn) == expected.shape[:2]


@pytest.mark.parametrize("turn", TURNS)
def test_turning_back_gives_the_stored_pixels(turn: int) -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    assert np.array_equal(turns.to_stored(turns.to_upright(pixels, turn), turn), pixels)
