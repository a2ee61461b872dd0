"""Changes of a training picture: with its mask, within bounds, by the generator alone."""

import numpy as np
import pytest

from carvana_ray.images import augment

IMAGE = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
MASK = np.arange(100, 124, dtype=np.uint8).reshape(1, 4, 6)


def is_mirrored(seed: int) -> bool:
    image, _ = augment.random_flip(IMAGE, MASK, np.random.default_rng(seed))
    return not np.array_equal(image, IMAGE)


@pytest.mark.parametrize("seed", range(20))
def test_image_and_mask_are_mirrored_together_or_not_at_all(seed: int) -> None:
    image, mask = augment.random_flip(IMAGE, MASK, np.random.default_rng(seed))
    expected = (
        (np.fliplr(IMAGE[0]), np.fliplr(MASK[0])) if is_mirrored(seed) else (IMAGE[0], MASK[0])
    )
    assert np.array_equal(image[0], expected[0])
    assert np.array_equal(mask[0], expected[1])
    assert (image.dtype, mask.dtype) == (np.float32, np.uint8)


def test_about_half_of_all_pictures_are_mirrored() -> None:
    assert 450 < sum(map(is_mirrored, range(1000))) < 550


def test_the_same_generator_decides_alike_whatever_the_picture() -> None:
    for seed in range(10):
        other, _ = augment.random_flip(IMAGE[0], MASK[0], np.random.default_rng(seed))
        assert np.array_equal(other, IMAGE[0]) != is_mirrored(seed)


def test_mirrored_twice_is_the_picture_itself() -> None:
    seed = next(seed for seed in range(20) if is_mirrored(seed))
    once = augment.random_flip(IMAGE, MASK, np.random.default_rng(seed))
    twice = augment.random_flip(*once, np.random.default_rng(seed))
    assert np.array_equal(twice[0], IMAGE)
    assert np.array_equal(twice[1], MASK)


def test_the_picture_that_was_given_stays_as_it_is() -> None:
    image, mask = IMAGE.copy(), MASK.copy()
    for seed in range(10):
        augment.random_flip(image, mask, np.random.default_rng(seed))
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(mask, MASK)


def test_moves_are_within_their_bounds_and_mirror_in_half_of_all_cases() -> None:
    drawn = np.stack(
        [augment.sample_affine(np.random.default_rng(seed), flip=True) for seed in range(1000)]
    )
    assert drawn.shape == (1000, 2, 3)
    assert drawn.dtype == np.float32
    mirrored = drawn[:, 0, 0] < 0
    assert 450 < mirrored.sum() < 550
    size = drawn[:, 1, 1]
    assert np.array_equal(np.abs(drawn[:, 0, 0]), size), "height and width grow alike"
    assert np.abs(np.log(size)).max() <= augment.SCALE * 1.0001
    assert np.abs(np.log(size)).max() > 0.9 * augment.SCALE
    moved = np.abs(drawn[:, :, 2])  # -1 to 1 is the whole picture
    assert 1.8 * augment.SHIFT < moved.max() <= 2.0001 * augment.SHIFT
    assert not drawn[:, 0, 1].any()
    assert not drawn[:, 1, 0].any()


def test_without_flip_no_move_mirrors() -> None:
    drawn = [augment.sample_affine(np.random.default_rng(seed), flip=False) for seed in range(50)]
    assert all(one[0, 0] > 0 for one in drawn)
