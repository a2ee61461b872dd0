"""Alpha follows the soft mask at the edge of the mask, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray import images
from carvana_ray.cutouts import alpha

SIZES = [(1280, 1918, 4), (61, 35, 2), (33, 47, 8), (9, 1, 4), (1, 1, 8), (16, 24, 1)]
BAND = 24  # pixels


def random_soft_mask(height: int, width: int, downscale: int, seed: int = 0) -> np.ndarray:
    """Return a random soft mask [h, w] with many values of 0, 255 and around one half."""
    rng = np.random.default_rng(seed)
    h, w = images.grid_size(height, width, downscale)
    return rng.choice(np.array([0, 0, 1, 126, 127, 128, 129, 254, 255, 255], np.uint8), (h, w))


def within(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels whose Euclidean distance from a true pixel is at most `radius`."""
    height, width = mask.shape
    count = np.pad(mask.cumsum(1), ((0, 0), (1, 0)))
    columns, near = np.arange(width), np.zeros_like(mask)
    most = min(radius, height - 1)
    for dy in range(-most, most + 1):
        reach = int((radius**2 - dy**2) ** 0.5)
        right = count[:, np.minimum(columns + reach + 1, width)]
        row = right > count[:, np.maximum(columns - reach, 0)]
        near[max(dy, 0) : height + min(dy, 0)] |= row[max(-dy, 0) : height - max(dy, 0)]
    return near


def blobs(height: int, width: int, seed: int) -> np.ndarray:
    """Return alpha of random disks on half belief in everything: car, ground, holes and specks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    result = rng.integers(0, 128, (height, width))
    for index in range(rng.integers(0, 6)):
        center = rng.random(2) * (height, width)
        inside = np.hypot(y - center[0], x - center[1]) < rng.random() ** 2 * max(height, width)
        low, high = ((128, 256), (0, 128))[index % 2]
        result[inside] = rng.integers(low, high, inside.sum())
    return result.astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_soft_alpha_is_128_or_more_exactly_where_the_mask_is_true(
    size: tuple[int, int, int], seed: int
) -> None:
    soft_mask = random_soft_mask(*size, seed)
    result = alpha.soft_alpha(soft_mask, *size[:2])
    assert result.dtype == np.uint8
    assert np.array_equal(result >= 128, images.enlarge(soft_mask, *size[:2]))


@pytest.mark.parametrize("level", range(256))
def test_soft_alpha_has_twice_the_contrast_of_the_soft_mask(level: int) -> None:
    soft_mask = np.full((3, 5), level, np.uint8)
    assert (alpha.soft_alpha(soft_mask, 12, 18) == min(max(2 * level - 128, 0), 255)).all()


def test_exactly_one_half_is_background_in_alpha_and_mask() -> None:
    soft_mask = np.array([[127, 128]], np.uint8)  # halfway between the two blocks: 127.5
    smooth = images.upsample(soft_mask, 3, 6)
    assert (smooth == 127.5).any() == (images.infer_downscale(3, 6, 1, 2) % 2 == 1)
    for downscale in (1, 2, 4, 8):
        size = downscale, 2 * downscale
        soft = alpha.soft_alpha(soft_mask, *size)
        assert np.array_equal(soft >= 128, images.enlarge(soft_mask, *size))


def test_hard_alpha_is_the_mask() -> None:
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    result = alpha.hard_alpha(mask)
    assert set(np.unique(result)) == {0, 255}
    assert np.array_equal(result == 255, mask)


def test_the_oracle_of_these_tests_is_the_distance() -> None:
    mask = np.random.default_rng(0).random((23, 31)) < 0.01
    y, x = np.mgrid[:23, :31]
    expected = np.min([np.hypot(y - py, x - px) for py, px in np.argwhere(mask)], axis=0)
    for radius in (0, 1, 5, 8):
        assert np.array_equal(within(mask, radius), expected <= radius)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 110), st.integers(1, 110), st.integers(0, 2**32))
def test_alpha_is_soft_within_a_band_about_the_edge_only(
    height: int, width: int, seed: int
) -> None:
    _require_band(blobs(height, width, seed), 11)


@pytest.mark.parametrize(("size", "seed"), [((641, 650), 1), ((640, 777), 2), ((900, 643), 3)])
def test_the_band_of_large_images_is_wider(size: tuple[int, int], seed: int) -> None:
    _require_band(blobs(*size, seed), 23)


def _require_band(soft: np.ndarray, reach: int) -> None:
    """Check all promises of `limit_to_band`; reach is the largest possible width of the band."""
    assert reach < BAND
    limited, mask = alpha.limit_to_band(soft), soft >= 128
    assert limited.dtype == np.uint8
    assert np.array_equal(limited >= 128, mask), "the mask stays, with its holes and specks"
    assert not limited[~within(mask, reach)].any()
    assert (limited[~within(~mask, reach)] == 255).all()
    assert (limited[mask] >= soft[mask]).all()
    assert (limited[~mask] <= soft[~mask]).all()
    assert np.array_equal(alpha.limit_to_band(limited), limited)
    inverse = alpha.limit_to_band(255 - soft).astype(int)
    assert np.abs(inverse - (255 - limited.astype(int))).max() <= 2, "outside is as inside"


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0, 40.0])
@pytest.mark.parametrize("size", [(150, 170), (656, 700)])
def test_edges_of_a_sure_network_stay_as_they_are(
    block: int, slope: float, size: tuple[int, int]
) -> None:
    if block == 16 and size[0] < alpha.FINE_BELOW:
        pytest.skip("too coarse for so small an image")
    y, x = np.mgrid[: size[0], : size[1]]
    mask = (y - size[0] / 2) + slope * (x - size[1] / 2) > 3
    soft = alpha.soft_alpha(images.shrink_mask(mask, block), *size)
    assert np.abs(alpha.limit_to_band(soft).astype(int) - soft).max() <= 1


def test_half_belief_fades_evenly_with_the_distance() -> None:
    soft = np.full((800, 800), 127, np.uint8)
    soft[:, :400] = 128
    row = alpha.limit_to_band(soft)[400].astype(int)
    assert (np.diff(row) <= 0).all()
    assert (np.diff(row) >= -10).all()
    soft_columns = np.flatnonzero((row > 0) & (row < 255))
    assert 2 * 14 <= len(soft_columns) <= 2 * 18


def test_thin_parts_and_gaps_stay() -> None:
    """An antenna outside and a gap inside, one pixel wide, keep the alpha of their sides too."""
    soft = np.zeros((700, 700), np.uint8)
    soft[200:500, 350] = 200
    soft[200:500, [349, 351]] = 90
    for sign in (soft, 255 - soft):
        limited = alpha.limit_to_band(sign)
        assert np.abs(limited[205:495, 350].astype(int) - sign[205:495, 350]).max() == 0
        assert np.abs(limited[205:495, 349:352].astype(int) - sign[205:495, 349:352]).max() == 0


@pytest.mark.parametrize("level", [0, 90, 127, 128, 200, 255])
def test_an_image_without_an_edge_is_all_car_or_all_background(level: int) -> None:
    limited = alpha.limit_to_band(np.full((50, 60), level, np.uint8))
    assert (limited == (255 if level >= 128 else 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (40, 31)])
@pytest.mark.parametrize("seed", range(3))
def test_smooth_alpha_is_the_mean_of_nine_pixels_as_far_as_the_mask_allows(
    size: tuple[int, int], seed: int
) -> None:
    mask = np.random.default_rng(seed).random(size) < 0.5
    mask[: size[0] // 2] = seed == 1  # an even area, so that some means are 0 or 255
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1, mode="edge"), (3, 3))
    mean = 255 * windows.mean((2, 3))
    result = alpha.smooth_alpha(mask)
    assert result.dtype == np.uint8
    assert np.array_equal(result >= 128, mask)
    expected = np.where(mask, np.maximum(mean, 128), np.minimum(mean, 127))
    assert np.abs(result - expected).max() <= 1
    assert np.array_equal(result == 255, windows.all((2, 3)))
    assert np.array_equal(result == 0, ~windows.any((2, 3)))


@pytest.mark.parametrize("size", [100, 700])
def test_a_cleared_piece_takes_its_soft_edge_along_and_no_other(size: int) -> None:
    levels = np.zeros((size, size), np.uint8)
    levels[:, :20] = 255  # the car
    levels[:, 20] = 90  # its soft edge
    levels[50:54, 21:28] = 200  # a piece that nearly touches it
    levels[50:54, 60:70] = 200
    levels[80:84, 26:30] = 200
    levels[80:84, 25] = 40  # soft edge of a piece near the car
    levels[44:60, 54:60] = levels[44:60, 70:76] = 40  # soft edges of a piece far away
    result = alpha.clear_around(levels, levels == 200)
    assert np.array_equal(result[:, :21], levels[:, :21]), "what is as near to the car stays"
    assert not result[:, 21:].any()
