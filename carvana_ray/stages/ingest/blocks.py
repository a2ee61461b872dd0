"""Blocks of Ray Data that mean something: one row of the input is one block of the output.

Ray Data cuts and joins blocks by bytes; here a block is a shard, a chunk of the cache, or one
worker's part of a batch. So each input row names the pictures of one block, and the first map reads
and decodes them (see `reading`).
"""

from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from carvana_ray import images

Columns = dict[str, Any]
RETRIES = 3  # of a task whose process dies; Ray Data's own default is without end


def from_blocks(rows: list[dict[str, Any]]) -> ray.data.Dataset:
    """Return a data set of one block a row, whose blocks stay whole."""
    return keep_blocks_whole(ray.data.from_items(rows, override_num_blocks=len(rows)))


def keep_blocks_whole(blocks: ray.data.Dataset) -> ray.data.Dataset:
    """Return a data set that Ray Data does not cut above its usual size of 128 MiB a block.

    The maps that follow inherit this.
    """
    blocks.context.target_max_block_size = None
    return blocks


def single_row(batch: Columns) -> dict[str, Any]:
    """Return the only row of a batch."""
    (length,) = {len(column) for column in batch.values()}
    if length != 1:
        raise RuntimeError(f"a block of {length} rows where one row must stand for one block")
    return {name: column[0] for name, column in batch.items()}


def stack_or_object(grays: list[NDArray[np.uint8]]) -> NDArray:
    """Return arrays of one shape as [n, h, w], of several as an array of objects [n]."""
    if len({gray.shape for gray in grays}) == 1:
        return np.stack(grays)
    result = np.empty(len(grays), dtype=object)
    for place, gray in enumerate(grays):  # not `[:]`, which takes arrays of one shape apart
        result[place] = gray
    return result


def standardize(batch: Columns) -> Columns:
    """Map ``image`` uint8 [n, h, w] to float32, by `images.standardize`."""
    return {**batch, "image": images.standardize(batch["image"])}
