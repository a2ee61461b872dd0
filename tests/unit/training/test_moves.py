"""The random moves of a batch: functions of (seed, epoch, image), the same for any workers."""

import dataclasses

import numpy as np
import pytest

from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.images import augment
from carvana_ray.training import moves
from carvana_ray.training.batch_plan import BatchPlan

PLAN = BatchPlan(train=10, val=3, batch=4, workers=1, epochs=3, seed=5)


@pytest.mark.parametrize("workers", [1, 3])
def test_moves_depend_on_seed_epoch_and_image_only(workers: int) -> None:
    plan = dataclasses.replace(PLAN, workers=workers)
    mirrored = 0
    for index in range(plan.epochs * plan.blocks_per_epoch):
        batch = plan.worker_batch(index)
        rngs = [np.random.default_rng((5, batch.epoch, image, 1)) for image in batch.indices]
        flips = moves.draw_mirrored(plan, batch, RECIPES["default"])
        assert flips.dtype == np.bool_
        assert flips.tolist() == [batch.training and augment.coin(rng) for rng in rngs]
        mirrored += int(flips[batch.weight > 0].sum())
        rngs = [np.random.default_rng((5, batch.epoch, image, 1)) for image in batch.indices]
        matrices = moves.draw_matrices(plan, batch, RECIPES["starter"])
        assert matrices.dtype == np.float32
        for matrix, rng in zip(matrices, rngs, strict=True):
            assert np.array_equal(matrix, augment.sample_affine(rng, True, 0.12, 0.4))
    assert mirrored == 10, "of 24, whatever the number of workers"


def test_only_a_recipe_that_flips_without_matrices_mirrors_in_the_stream() -> None:
    batch = PLAN.worker_batch(0)
    for recipe in (Recipe(flip=False), RECIPES["best"]):
        assert not moves.draw_mirrored(PLAN, batch, recipe).any()
