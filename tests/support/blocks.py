"""Rows of a data set as Ray Data hands them to a map, and listed files."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ray.storage import FileInfo


def listed(folder: Path | str, names: Sequence[str]) -> list[FileInfo]:
    """Return files as a listing has them now; one that cannot be looked at has size 0."""
    entries = []
    for name in names:
        entry = FileInfo(name, 0, "")
        with contextlib.suppress(OSError):
            status = (Path(folder) / name).stat()
            entry = FileInfo(name, status.st_size, str(status.st_mtime_ns))
        entries.append(entry)
    return entries


def batch_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the batch of one row, as `map_batches` gives it to a function."""
    batch = {}
    for name, value in row.items():
        batch[name] = np.empty(1, dtype=object)
        batch[name][0] = value
    return batch
