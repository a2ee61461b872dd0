"""Rows of a data set as Ray Data hands them to a map."""

from typing import Any

import numpy as np


def batch_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the batch of one row, as `map_batches` gives it to a function."""
    batch = {}
    for name, value in row.items():
        batch[name] = np.empty(1, dtype=object)
        batch[name][0] = value
    return batch
