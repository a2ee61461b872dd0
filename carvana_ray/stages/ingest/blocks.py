"""Blocks as maps see them: a batch is a dictionary of columns. Imports no Ray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import images

Columns = dict[str, Any]


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
