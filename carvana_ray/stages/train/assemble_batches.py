"""The map of the training stream: the number of a block in, the images of its batches out.

Imports no torch, so that the task processes start quickly.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from carvana_ray.config.recipes import Recipe
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.training import moves
from carvana_ray.training.batch_plan import BatchPlan

CHUNK = 32  # pairs per chunk, 10 MB at downscale 4; a batch of 16 reads 16 chunks without copies
MAX_IMAGES = 64  # per block, 49 MB at downscale 4; Ray Data then splits 20 blocks/s, not 90
MAX_BLOCK_BYTES = 160_000_000  # 32 images and masks of 1280 x 1918, as uint8


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """The definition of a training stream.

    Attributes:
        plan: which images make up which batch.
        progress: handle of the `ProgressActor` that holds the decoded chunks.
        kept: int64, the row of each of the plan's images among the decoded pairs.
        recipe: with its `flip` each training image is mirrored with probability 1/2. With its
            `affine_augment` each image gets a random affine matrix instead, which the workers apply
            on their device before they standardize.
    """

    plan: BatchPlan
    progress: Any
    kept: NDArray[np.int64]
    recipe: Recipe


def steps_per_block(per_worker: int, grid: tuple[int, int]) -> int:
    """Return the number of steps, of `per_worker` images [h, w] each, that make up one block."""
    return max(1, min(MAX_IMAGES, MAX_BLOCK_BYTES // (2 * grid[0] * grid[1])) // per_worker)


def assemble_batches(
    batch: Columns, spec: BatchSpec, first_step: int = 0, steps: int = 1
) -> Columns:
    """Map the number of a block to one worker's batches of some consecutive steps.

    Args:
        batch: one row with ``id``, the number of a block. Blocks 0 to workers - 1 hold the first
            steps, one block for each worker.
        spec: the stream.
        first_step: step of the run at which block 0 begins.
        steps: steps in a block; the last block of a worker may have fewer.

    Returns:
        b images for each step: ``image`` and ``soft_mask`` uint8 [b, h, w], ``weight`` float32 [b],
        ``epoch`` and ``rank`` int64 [b]; with `affine_augment` also ``affine`` float32 [b, 2, 3].
    """
    group, rank = divmod(int(batch["id"][0]), spec.plan.workers)
    first = first_step + group * steps
    last = min(first + steps, spec.plan.total_steps)
    plan, recipe = spec.plan, spec.recipe
    parts = [plan.worker_batch(step * plan.workers + rank) for step in range(first, last)]
    affine = {}
    if recipe.affine_augment:
        matrices = [moves.draw_matrices(plan, part, recipe) for part in parts]
        affine["affine"] = np.concatenate(matrices)
    mirrored = np.concatenate([moves.draw_mirrored(plan, part, recipe) for part in parts])
    return {
        **gather_pairs(spec, np.concatenate([part.indices for part in parts]), mirrored),
        "weight": np.concatenate([part.weight for part in parts]),
        **affine,
        "epoch": np.repeat([part.epoch for part in parts], plan.per_worker),
        "rank": np.full(len(mirrored), rank),
    }


def gather_pairs(
    spec: BatchSpec, indices: NDArray[np.int64], mirrored: NDArray[np.bool_] | None = None
) -> Columns:
    """Return images and soft masks from the object store, copied once.

    Args:
        indices: int64 [n], image numbers of the plan.
        mirrored: bool [n], which of them to mirror left to right; by default none.

    Returns:
        ``image`` and ``soft_mask`` uint8 [n, h, w].
    """
    chunk_numbers, rows = np.divmod(spec.kept[indices], CHUNK)
    refs = _chunk_refs(spec.progress)
    needed = np.unique(chunk_numbers)
    tables = dict(zip(needed, ray.get([refs[number] for number in needed]), strict=True))
    columns = {}
    for name in ("image", "soft_mask"):
        arrays = {number: _array(table, name) for number, table in tables.items()}
        columns[name] = np.empty((len(rows), *arrays[needed[0]].shape[1:]), dtype=np.uint8)
        for to, (number, row) in enumerate(zip(chunk_numbers, rows, strict=True)):
            step = -1 if mirrored is not None and mirrored[to] else 1
            columns[name][to] = arrays[number][row, :, ::step]
    return columns


@functools.lru_cache(maxsize=1)  # once per process
def _chunk_refs(progress: Any) -> list[Any]:
    return ray.get(progress.get_chunks.remote())


def _array(table: Any, name: str) -> NDArray[np.uint8]:
    """Return a tensor column of an Arrow table as an array [n, h, w], without a copy."""
    return table.column(name).chunk(0).to_numpy()
