"""The random moves of a batch's training images: a pure function of (seed, epoch, image).

The stream of batches and the batches that are gathered on the device draw the same ones. Imports no
torch.
"""

import numpy as np
from numpy.typing import NDArray

from carvana_ray.config.recipes import Recipe
from carvana_ray.images import augment
from carvana_ray.training.batch_plan import BatchPlan, WorkerBatch


def draw_mirrored(plan: BatchPlan, batch: WorkerBatch, recipe: Recipe) -> NDArray[np.bool_]:
    """Return which images of a batch the stream mirrors: bool [b]."""
    length = len(batch.indices)
    if recipe.affine_augment or not recipe.flip or not batch.training:
        return np.zeros(length, dtype=np.bool_)
    return np.array([augment.coin(plan.rng(batch, row)) for row in range(length)])


def draw_matrices(plan: BatchPlan, batch: WorkerBatch, recipe: Recipe) -> NDArray[np.float32]:
    """Return the affine matrices of a batch: float32 [b, 2, 3], see `augment.sample_affine`.

    Validation images have matrices too, which nothing applies: all blocks of a Ray Data stream need
    the same columns.
    """
    limits = recipe.flip, recipe.max_shift, recipe.max_log_scale
    rngs = (plan.rng(batch, row) for row in range(len(batch.indices)))
    return np.stack([augment.sample_affine(rng, *limits) for rng in rngs])
