"""Dice against sets of pixels, and the sums over a batch against image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carvana_ray.unet import metrics

PAIRS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
)


def brute(mask: np.ndarray, truth: np.ndarray) -> float:
    ours = {index for index, pixel in enumerate(mask.reshape(-1).tolist()) if pixel}
    theirs = {index for index, pixel in enumerate(truth.reshape(-1).tolist()) if pixel}
    return 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 1.0


@settings(deadline=None, max_examples=200)
@given(pair=PAIRS)
def test_dice_equals_that_of_sets_of_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    mask, truth = pair
    assert metrics.dice(mask, truth) == pytest.approx(brute(mask, truth), abs=1e-12)
    assert metrics.dice(truth, mask) == metrics.dice(mask, truth)
    assert metrics.dice(mask, mask) == 1


def test_dice_has_the_known_values() -> None:
    none, left = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    left[:, :2] = True
    assert metrics.dice(none, none) == 1
    assert metrics.dice(none, left) == 0
    assert metrics.dice(left, ~left) == 0
    assert metrics.dice(left, ~none) == pytest.approx(2 / 3)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 1, 8, 12)).astype(np.float32)
    target = rng.random((6, 1, 8, 12)).astype(np.float32)
    logits[1], target[1] = -1, 0  # both empty
    logits[2] = -1  # nothing found
    target[3] = 0.5  # a half is background
    logits[4, :, :4], target[4, :, :4] = 0, 0.5  # so is a logit of 0
    return torch.from_numpy(logits), torch.from_numpy(target)


@pytest.mark.parametrize("weight", [[1] * 6, [1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1], [0] * 6])
def test_sums_are_those_of_the_images_of_weight_1(weight: list[int]) -> None:
    logits, target = batch()
    images, dice, accuracy = 0, 0.0, 0.0
    for mask, truth, counts in zip(logits.numpy() > 0, target.numpy() > 0.5, weight, strict=True):
        if counts:
            images += 1
            dice += brute(mask, truth)
            accuracy += float((mask == truth).mean())
    sums = metrics.metric_sums(logits, target, torch.tensor(weight, dtype=torch.float32))
    assert sums.dtype == torch.float64
    assert sums.shape == (len(metrics.METRICS),)
    assert sums.tolist() == pytest.approx([images, dice, accuracy], abs=1e-5)


def test_padding_of_a_batch_changes_nothing() -> None:
    logits, target = batch()
    weight = torch.tensor([1.0, 1, 1, 0, 0, 0])
    before = metrics.metric_sums(logits, target, weight)
    logits[3:], target[3:] = 7, 0
    assert torch.equal(metrics.metric_sums(logits, target, weight), before)


def test_sums_of_two_halves_add_up_to_those_of_the_whole() -> None:
    logits, target = batch()
    weight = torch.ones(6)
    parts = [
        metrics.metric_sums(logits[half], target[half], weight[half])
        for half in (slice(0, 2), slice(2, 6))
    ]
    whole = metrics.metric_sums(logits, target, weight)
    assert torch.allclose(parts[0] + parts[1], whole, atol=1e-6)


def test_dice_is_the_mean_over_images_and_not_over_pixels() -> None:
    """Kaggle scores this: a small car counts as much as a large one."""
    logits, target = torch.full((2, 1, 4, 4), -1.0), torch.zeros(2, 1, 4, 4)
    target[0] = 1  # a large car that is not found
    target[1, 0, 0, 0] = 1
    logits[1, 0, 0, 0] = 1  # a small one that is
    assert metrics.metric_sums(logits, target, torch.ones(2)).tolist()[:2] == [2, 1]
