"""Random changes of a training image: together with its mask, within bounds, reproducible."""

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


def test_about_half_of_all_images_are_mirrored() -> None:
    assert 450 < sum(map(is_mirrored, range(1000))) < 550


def test_the_decision_depends_on_the_generator_only() -> None:
    for seed in range(10):
        other, _ = augment.random_flip(IMAGE[0], MASK[0], np.random.default_rng(seed))
        assert np.array_equal(other, IMAGE[0]) != is_mirrored(seed)


def test_mirrored_twice_is_the_image_itself() -> None:
    seed = next(seed for seed in range(20) if is_mirrored(seed))
    once = augment.random_flip(IMAGE, MASK, np.random.default_rng(seed))
    twice = augment.random_flip(*once, np.random.default_rng(seed))
    assert np.array_equal(twice[0], IMAGE)
    assert np.array_equal(twice[1], MASK)


def test_the_input_is_not_changed() -> None:
    image, mask = IMAGE.copy(), MASK.copy()
    for seed in range(10):
        augment.random_flip(image, mask, np.random.default_rng(seed))
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(mask, MASK)


def test_transforms_are_within_bounds_and_half_of_them_mirror() -> None:
    matrices = np.stack(
        [augment.sample_affine(np.random.default_rng(seed), flip=True) for seed in range(1000)]
    )
    assert matrices.shape == (1000, 2, 3)
    assert matrices.dtype == np.float32
    mirrored = matrices[:, 0, 0] < 0
    assert 450 < mirrored.sum() < 550
    size = matrices[:, 1, 1]
    assert np.array_equal(np.abs(matrices[:, 0, 0]), size), "height and width have one scale"
    assert np.abs(np.log(size)).max() <= augment.SCALE * 1.0001
    assert np.abs(np.log(size)).max() > 0.9 * augment.SCALE
    moved = np.abs(matrices[:, :, 2])  # -1 to 1 is the whole image
    assert 1.8 * augment.SHIFT < moved.max() <= 2.0001 * augment.SHIFT
    assert not matrices[:, 0, 1].any()
    assert not matrices[:, 1, 0].any()


def test_without_flip_no_transform_mirrors() -> None:
    for seed in range(50):
        assert augment.sample_affine(np.random.default_rng(seed), flip=False)[0, 0] > 0
