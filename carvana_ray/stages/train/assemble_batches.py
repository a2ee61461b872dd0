"""From the number of a block to its pictures: the map that makes the batches of a training.

Imports no torch: these tasks run in processes of their own, which should start quickly.
"""

import functools
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from carvana_ray.images import augment
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.training.batch_plan import BatchPlan

CHUNK = 32  # pictures; 10 MB at a quarter: a batch of 16 opens 16 of them, each without a copy
MOST = 64  # pictures of a block, 49 MB at a quarter: Ray Data then deals 20 a second, not 90
MOST_BYTES = 160_000_000  # of a block: 32 pictures and masks of 1280 x 1918, as uint8


def steps_per_block(share: int, grid: tuple[int, int]) -> int:
    """Return the number of steps that make a block.

    Args:
        share: pictures of each step.
        grid: (h, w) of a picture.
    """
    return max(1, min(MOST, MOST_BYTES // (2 * grid[0] * grid[1])) // share)


def assemble_batches(
    batch: Columns,
    *,
    plan: BatchPlan,
    board: Any,
    kept: NDArray[np.int64],
    flip: bool,
    jitter: bool = False,
    first_step: int = 0,
    steps: int = 1,
) -> Columns:
    """Map a number to the pictures of one worker in some steps that follow each other.

    Args:
        batch: one row, ``id``: workers in turn, then the next steps; from 0.
        plan: says which pictures these are.
        board: has the chunks of `feed.decode`.
        kept: int64, from the plan's pictures to those of the chunks.
        flip: mirror every other training picture.
        jitter: tell how to move and size each picture, and mirror it, as ``warp``; see `warp.warp`.
        first_step: of the run, where number 0 begins.
        steps: a block; the last one of a run may have fewer.

    Returns:
        ``image`` and ``share`` uint8 [b, h, w], ``weight`` float32 [b], ``epoch`` and ``rank``
        int64 [b], b pictures of each step; with `jitter` ``warp`` float32 [b, 2, 3].
    """
    group, rank = divmod(int(batch["id"][0]), plan.workers)
    first = first_step + group * steps
    last = min(first + steps, plan.epochs * plan.steps_per_epoch)
    parts = [
        _step(plan, step * plan.workers + rank, board, kept, flip, jitter)
        for step in range(first, last)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _step(
    plan: BatchPlan, index: int, board: Any, kept: NDArray[np.int64], flip: bool, jitter: bool
) -> Columns:
    block = plan.worker_batch(index)
    chunk, row = np.divmod(kept[block.indices], CHUNK)
    chunks = _chunks(board)
    needed = list(dict.fromkeys(chunk.tolist()))
    tables = dict(zip(needed, ray.get([chunks[at] for at in needed]), strict=True))
    image, share = [], []
    for place, (at, within) in enumerate(zip(chunk.tolist(), row.tolist(), strict=True)):
        pair = (_array(tables[at], "gray")[within], _array(tables[at], "share")[within])
        if block.training and flip and not jitter:
            pair = augment.random_flip(*pair, plan.rng(block, place))
        image.append(pair[0])
        share.append(pair[1])
    count = len(block.indices)
    moves: Columns = {}
    if jitter:  # drawn for validation, too, which does not look at them: blocks have both
        drawn = [augment.sample_affine(plan.rng(block, place), flip) for place in range(count)]
        moves = {"warp": np.stack(drawn)}
    return {
        "image": np.stack(image),
        "share": np.stack(share),
        "weight": block.weight,
        **moves,
        "epoch": np.full(count, block.epoch),
        "rank": np.full(count, block.rank),
    }


@functools.lru_cache(maxsize=1)
def _chunks(board: Any) -> list[Any]:
    return ray.get(board.chunks.remote())


def _array(table: Any, name: str) -> NDArray[np.uint8]:
    """Return a tensor column of an Arrow table as an array [n, h, w], without a copy."""
    return table.column(name).chunk(0).to_numpy()
