"""Random changes of a training image: together with its mask, within bounds, reproducible."""

import numpy as np
import pytest

from carvana_ray.images import augment


def test_a_coin_is_fair_and_depends_on_the_generator_only() -> None:
    tossed = [augment.coin(np.random.default_rng(seed)) for seed in range(1000)]
    assert 450 < sum(tossed) < 550
    assert tossed[:50] == [augment.coin(np.random.default_rng(seed)) for seed in range(50)]


SHIFT, SCALE = 0.03, 0.2


@pytest.fixture(scope="module")
def matrices() -> np.ndarray:
    """4,000 transforms: float32 [4000, 2, 3]."""
    rngs = map(np.random.default_rng, range(4000))
    return np.stack([augment.sample_affine(rng, True, SHIFT, SCALE) for rng in rngs])


def test_transforms_are_within_bounds_and_half_of_them_mirror(matrices: np.ndarray) -> None:
    assert matrices.shape == (4000, 2, 3)
    assert matrices.dtype == np.float32
    assert 1850 < (matrices[:, 0, 0] < 0).sum() < 2150
    size = matrices[:, 1, 1]
    assert np.array_equal(np.abs(matrices[:, 0, 0]), size), "height and width have one scale"
    assert np.abs(np.log(size)).max() <= SCALE * 1.0001
    assert np.abs(matrices[:, :, 2]).max() <= 2.0001 * SHIFT  # -1 to 1 is the whole image
    assert not matrices[:, 0, 1].any()
    assert not matrices[:, 1, 0].any()


def test_shifts_and_scale_are_uniform_symmetric_and_independent(matrices: np.ndarray) -> None:
    """Five standard errors: a fixed seed stays within them, a biased or shared draw does not."""
    draws = np.stack([matrices[:, 0, 2] / (2 * SHIFT), matrices[:, 1, 2] / (2 * SHIFT)])
    draws = np.concatenate([draws, np.log(matrices[None, :, 1, 1]) / SCALE])
    count = draws.shape[1]
    assert (np.abs(draws.mean(1)) < 5 / np.sqrt(3 * count)).all(), "variance of (-1, 1) is 1/3"
    for one in draws:
        tenths, _ = np.histogram(one, 10, (-1.0001, 1.0001))
        assert tenths.sum() == count
        assert np.abs(tenths - count / 10).max() < 5 * np.sqrt(0.09 * count)
    mirrored = np.sign(matrices[None, :, 0, 0])
    correlation = np.corrcoef(np.concatenate([draws, mirrored])) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(count)


def test_without_flip_no_transform_mirrors() -> None:
    for seed in range(50):
        assert augment.sample_affine(np.random.default_rng(seed), False, SHIFT, SCALE)[0, 0] > 0


def test_the_transforms_of_a_seed_stay_those_of_earlier_versions() -> None:
    """A resumed run must see the images that it would have seen."""
    found = augment.sample_affine(np.random.default_rng((1, 2, 3, 1)), True, 0.03, 0.08)
    expected = [[1.04763400, 0, 0.05572618], [0, 1.04763400, 0.04353495]]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
