"""To the network's grid and back, and standardization, against float64 in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.pairs import HEIGHT, WIDTH, block_mean

from carvana_ray.images.resize import (
    enlarge,
    grid_size,
    infer_downscale,
    shrink_mask,
    standardize,
)

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def bilinear(soft_mask: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge by a whole factor in float64: half-pixel centers, clamped at the edges."""

    def weights(length: int) -> np.ndarray:
        result = np.zeros((length * factor, length))
        for row in range(length * factor):
            at = (row + 0.5) / factor - 0.5
            low = math.floor(at)
            for source, weight in ((low, 1 - (at - low)), (low + 1, at - low)):
                result[row, min(max(source, 0), length - 1)] += weight
        return result

    return (
        weights(soft_mask.shape[0]) @ soft_mask.astype(np.float64) @ weights(soft_mask.shape[1]).T
    )


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@settings(deadline=None, max_examples=200)
@given(mask=MASKS, downscale=st.sampled_from([1, 2, 3, 4, 8]))
def test_a_soft_mask_is_the_rounded_mean_of_each_block(mask: np.ndarray, downscale: int) -> None:
    soft_mask = shrink_mask(mask, downscale)
    exact = block_mean(mask * 255.0, downscale)
    assert soft_mask.dtype == np.uint8
    assert soft_mask.shape == exact.shape
    assert np.abs(soft_mask - exact).max() <= 0.5


def test_the_last_column_is_repeated_to_fill_a_block() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, -2:] = True
    soft_mask = shrink_mask(mask, 8)
    assert soft_mask.shape == (160, 240)
    # The last block has 4 columns of background, 2 of car, and 2 that repeat the last one.
    assert set(soft_mask[:, -1].tolist()) <= {127, 128}
    assert not soft_mask[:, :-1].any()


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
def test_the_downscale_of_a_grid_is_inferred_and_another_grid_is_refused(downscale: int) -> None:
    assert infer_downscale(1280, 1918, *grid_size(1280, 1918, downscale)) == downscale
    assert infer_downscale(21, 33, *grid_size(21, 33, downscale)) == downscale
    with pytest.raises(ValueError, match="not a whole fraction"):
        infer_downscale(1280, 1918, math.ceil(1280 / downscale) - 1, math.ceil(1918 / downscale))
    with pytest.raises(ValueError, match="does not fit an image of 1280 x 1918"):
        enlarge(np.zeros((10, 10), dtype=np.uint8), 1280, 1918)


SIZES = [(8, 8), (16, 24), (17, 25), (31, 40), (40, 30), (9, 64)]


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_enlarge_is_bilinear_above_a_half(height: int, width: int, downscale: int) -> None:
    rng = np.random.default_rng(height * width + downscale)
    for _ in range(5):
        soft_mask = rng.integers(0, 256, grid_size(height, width, downscale), dtype=np.uint8)
        exact = bilinear(soft_mask, downscale)[:height, :width] > 127.5
        mask = enlarge(soft_mask, height, width)
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, exact)


@settings(deadline=None, max_examples=100)
@given(
    soft_mask=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.sampled_from([0, 1, 127, 128, 254, 255]),
    ),
    downscale=st.sampled_from([2, 4, 8]),
)
def test_enlarge_is_exact_for_uint8_ties_included(soft_mask: np.ndarray, downscale: int) -> None:
    height, width = (length * downscale for length in soft_mask.shape)
    assert np.array_equal(enlarge(soft_mask, height, width), bilinear(soft_mask, downscale) > 127.5)


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
def test_uint8_and_float_enlarge_to_the_same_mask(downscale: int) -> None:
    h, w = grid_size(61, 83, downscale)
    soft_mask = np.random.default_rng(downscale).integers(0, 256, (h, w), dtype=np.uint8)
    tie = np.abs(bilinear(soft_mask, downscale)[:61, :83] - 127.5) < 1e-3
    assert tie.mean() < 0.02
    whole = enlarge(soft_mask, 61, 83)
    for kind in (np.float32, np.float64):
        assert np.array_equal(enlarge((soft_mask / 255).astype(kind), 61, 83) | tie, whole | tie)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_batch_enlarges_like_single_masks(kind: type) -> None:
    soft_mask = np.random.default_rng(0).integers(0, 256, (5, 6, 9), dtype=np.uint8)
    batch = soft_mask if kind is np.uint8 else (soft_mask / 255).astype(np.float32)
    masks = enlarge(batch, 22, 33)
    assert masks.shape == (5, 22, 33)
    assert masks.dtype == np.bool_
    for mask, soft_mask in zip(masks, batch, strict=True):
        assert np.array_equal(mask, enlarge(soft_mask, 22, 33))
    assert enlarge(batch[:0], 22, 33).shape == (0, 22, 33)


@pytest.mark.parametrize(("downscale", "least"), [(2, 0.9995), (4, 0.999), (8, 0.998)])
@pytest.mark.parametrize(
    ("x", "y", "rx", "ry"),
    [(959, 640, 600, 300), (900.3, 700.7, 450.2, 210.9), (1500, 900, 600, 500)],
    ids=["in the middle", "small", "over the edges"],
)
def test_a_smooth_car_survives_shrink_and_enlarge(
    x: float, y: float, rx: float, ry: float, downscale: int, least: float
) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 < 1
    back = enlarge(shrink_mask(mask, downscale), HEIGHT, WIDTH)
    assert dice(mask, back) >= least


@pytest.mark.parametrize("downscale", [2, 4, 8])
def test_a_car_of_usual_size_keeps_a_dice_of_0999_at_every_downscale(downscale: int) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((columns - 959) / 600) ** 2 + ((rows - 640) / 300) ** 2 < 1
    back = enlarge(shrink_mask(mask, downscale), HEIGHT, WIDTH)
    assert dice(mask, back) >= 0.999


@settings(deadline=None, max_examples=50)
@given(mask=MASKS)
def test_at_downscale_1_shrink_and_enlarge_change_nothing(mask: np.ndarray) -> None:
    assert np.array_equal(enlarge(shrink_mask(mask, 1), *mask.shape), mask)


def test_standardized_images_have_mean_0_and_deviation_1() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (4, 30, 40), dtype=np.uint8)
    levels = standardize(gray)
    assert levels.dtype == np.float32
    assert levels.shape == gray.shape
    assert np.abs(levels.mean(axis=(1, 2))).max() < 1e-5
    assert np.abs(levels.std(axis=(1, 2)) - 1).max() < 1e-3
    exact = (gray - gray.mean(axis=(1, 2), keepdims=True)) / np.sqrt(
        gray.astype(np.float64).var(axis=(1, 2), keepdims=True) + 1
    )
    assert np.abs(levels - exact).max() < 1e-4


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_blank_image_becomes_zeros(level: int) -> None:
    for gray in (
        np.full((2, 8, 9), level, dtype=np.uint8),
        torch.full((2, 8, 9), level, dtype=torch.uint8),
    ):
        assert (np.asarray(standardize(gray)) == 0).all()


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    gray = np.random.default_rng(1).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    gray[0] //= 9
    gray[2] = 255
    together = standardize(gray)
    for result, image in zip(together, gray, strict=True):
        assert np.array_equal(result, standardize(image))
    assert np.array_equal(standardize(gray[:, None])[:, 0], together)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_numpy_and_torch_standardize_alike(kind: type) -> None:
    gray = np.random.default_rng(2).integers(0, 256, (3, 1, 20, 30)).astype(kind)
    tensor = standardize(torch.from_numpy(gray))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    assert np.allclose(tensor.numpy(), standardize(gray), atol=1e-5)


def test_standardize_does_not_change_its_input() -> None:
    gray = np.arange(12, dtype=np.float32).reshape(3, 4)
    before = gray.copy()
    standardize(gray)
    assert np.array_equal(gray, before)


@pytest.mark.parametrize("downscale", [3, 5, 6, 7])
def test_a_mask_shrunk_by_any_whole_number_is_enlarged_by_it(downscale: int) -> None:
    mask = np.zeros((61, 93), dtype=bool)
    mask[12:48, 20:77] = True
    soft_mask = shrink_mask(mask, downscale)
    back = enlarge(soft_mask, *mask.shape)
    assert back.shape == mask.shape
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.93
