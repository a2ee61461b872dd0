"""The scale of the network's grid, and that masks come back from it where they belong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.corpus import save
from support.pairs import waves

from carvana_ray import images
from carvana_ray.images.decode import load_upright_gray
from carvana_ray.images.resize import DOWNSCALES
from carvana_ray.images.scale import (
    MAX_RATIO,
    ScaleCount,
    load_network_gray,
    network_grid,
    training_scale,
)
from carvana_ray.images.validate import open_image
from carvana_ray.unet.metrics import dice

TRAINED = (160, 240)


def disk(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((columns - 0.4 * width) / (0.3 * width)) ** 2 + (
        (rows - 0.6 * height) / (0.3 * height)
    ) ** 2 < 1


def network_gray(data: bytes, downscale: int, turn: int = 1) -> np.ndarray:
    return load_network_gray(open_image(data), downscale, TRAINED, turn)


@pytest.mark.parametrize("size", [(160, 240), (240, 160), (196, 196), (140, 205), (185, 280)])
@pytest.mark.parametrize("downscale", DOWNSCALES)
def test_an_image_of_about_the_training_size_keeps_its_grid(
    size: tuple[int, int], downscale: int
) -> None:
    assert training_scale(*size, TRAINED) == 1
    data = save(waves(*size))
    assert np.array_equal(network_gray(data, downscale), images.load_gray(data, downscale))


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7, 1.45, 2, 3, 7.3])
@pytest.mark.parametrize("aspect", [1.5, 1, 0.75, 4])
def test_another_image_gets_as_many_pixels_as_the_training_images(
    ratio: float, aspect: float
) -> None:
    width = round(ratio * (160 * 240 * aspect) ** 0.5)
    height = round(width / aspect)
    assert training_scale(height, width, TRAINED) == pytest.approx(1 / ratio, rel=0.05)
    h, w = network_grid(height, width, 2, TRAINED)
    assert 4 * h * w == pytest.approx(160 * 240, rel=0.1)
    assert w / h == pytest.approx(aspect, rel=0.1)


def test_the_limit_is_a_ratio_of_height_and_width_in_either_direction() -> None:
    for ratio, scaled in ((MAX_RATIO - 0.01, False), (MAX_RATIO + 0.01, True)):
        larger = round(1000 * ratio), round(1500 * ratio)
        assert (training_scale(*larger, (1000, 1500)) != 1) == scaled
        assert (training_scale(1000, 1500, larger) != 1) == scaled


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("downscale", DOWNSCALES)
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.6, 1.5, 2, 2.9, 4, 9.1])
def test_a_shape_comes_back_to_its_place(kind: str, downscale: int, ratio: float) -> None:
    """Also at the right and lower border, where a decoder rounds up."""
    height, width = round(161 * ratio), round(243 * ratio)
    shape = disk(height, width)
    gray = network_gray(save(Image.fromarray(shape.astype(np.uint8) * 255), kind), downscale)
    assert gray.shape == network_grid(height, width, downscale, TRAINED)
    back = images.enlarge(gray, height, width)
    assert back.shape == shape.shape
    fine = min(1, ratio) / max(1, downscale / 2)
    assert dice(back, shape) > 1 - 0.01 / fine


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    height=st.integers(1, 900) | st.integers(1, 8),
    width=st.integers(1, 900) | st.integers(1, 8),
    downscale=st.sampled_from(DOWNSCALES),
)
def test_an_image_of_any_size_has_a_grid_and_a_mask(
    height: int, width: int, downscale: int
) -> None:
    data = save(np.full((height, width), 200, np.uint8), "PNG")
    gray = network_gray(data, downscale)
    assert set(np.unique(gray)) <= {199, 200, 201}
    assert images.enlarge(gray, height, width).all()
    assert gray.size <= 2 * max(160 * 240, 300 * max(gray.shape)) / downscale + max(gray.shape)


def test_scaled_images_are_counted_in_words() -> None:
    counted = ScaleCount((1000, 1500))
    for ratio in (1, 1.1, 0.9):
        counted.add(round(1_500_000 * ratio**2))
    assert str(counted) == ""
    for ratio in (0.5, 0.16, 1 / 120):
        counted.add(round(1_500_000 * ratio**2))
    assert str(counted) == "3 images are 2 to 120 times smaller"
    counted.add(6_000_000)
    assert str(counted) == "1 image is 2 times larger and 3 images are 2 to 120 times smaller"


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("size", [(160, 240), (81, 122), (500, 301)])
def test_the_network_sees_an_image_upright(turn: int, size: tuple[int, int]) -> None:
    data = save(waves(*size), "PNG")
    plain = network_gray(data, 4)
    assert np.array_equal(network_gray(data, 4, turn), images.to_upright(plain, turn))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_training_image_has_the_blocks_of_the_upright_one(turn: int) -> None:
    upright = waves(33, 50)
    stored = images.to_stored(upright, turn)
    gray = load_upright_gray(open_image(save(stored, "PNG")), 4, turn)
    assert np.array_equal(gray, images.load_gray(save(upright, "PNG"), 4))
