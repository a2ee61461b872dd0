"""Ray Data sets in which one input row becomes one block of the output.

Ray Data splits and joins blocks by their size in bytes. Here a block is a unit of work, such as a
shard. So each input row names the images of one block, and the first map reads them.
"""

from typing import Any

import ray.data

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
