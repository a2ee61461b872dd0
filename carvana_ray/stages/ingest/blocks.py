"""Ray Data sets in which one input row becomes one block of the output.

Ray Data splits and joins blocks by their size in bytes. Here a block is a unit of work, such as a
shard. So each input row names the images of one block, and the first map reads them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from carvana_ray import images

Columns = dict[str, Any]
RETRIES = 3  # of a task whose process dies; Ray Data's default is to retry without end


def from_blocks(rows: list[dict[str, Any]], max_lost: int = 0) -> ray.data.Dataset:
    """Return a dataset with one block per row. Its blocks stay whole.

    Ray Data drops up to `max_lost` blocks that fail, and only logs a line. The caller must compare
    the output with the input.
    """
    dataset = keep_blocks_whole(ray.data.from_items(rows, override_num_blocks=len(rows)))
    dataset.context.max_errored_blocks = max_lost
    return dataset


def keep_blocks_whole(dataset: ray.data.Dataset) -> ray.data.Dataset:
    """Disable the splitting of blocks above 128 MiB, also for the maps that follow."""
    dataset.context.target_max_block_size = None
    return dataset


def single_row(batch: Columns) -> dict[str, Any]:
    """Return the only row of a batch."""
    (length,) = {len(column) for column in batch.values()}
    if length != 1:
        raise RuntimeError(f"a block of {length} rows, expected one row")
    return {name: column[0] for name, column in batch.items()}


def stack_or_object(arrays: Sequence[NDArray[np.uint8]]) -> NDArray:
    """Return arrays of one shape as [n, h, w], arrays of several shapes as an object array [n]."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    result = np.empty(len(arrays), dtype=object)
    for row, array in enumerate(arrays):  # `result[:] =` would take equal first dimensions apart
        result[row] = array
    return result


def standardize(batch: Columns) -> Columns:
    """Map ``image`` uint8 [n, h, w] to float32, by `images.standardize`."""
    return {**batch, "image": images.standardize(batch["image"])}
