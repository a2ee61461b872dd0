"""Shards of a prediction on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from carvana_ray import rle, storage
from carvana_ray.data.quarantine import OK
from carvana_ray.storage import FileInfo
from carvana_ray.submission import shards
from carvana_ray.submission.plan import PlanPart


def rows_of(images: Sequence[FileInfo], statuses: list[str], **changes: list) -> pa.Table:
    """Return rows of these images for `serialize_shard`, with empty masks of 8 x 8."""
    count = len(images)
    columns = {
        "img": [image.name for image in images],
        "rle_mask": [""] * count,
        "height": [8] * count,
        "width": [8] * count,
        "crc32": list(range(count)),
        "orientation": [1] * count,
        "status": statuses,
        "row": list(range(count)),
        "rows": [count] * count,
    }
    return pa.table(columns | changes)


def write_shard(folder: Path, masks: list[np.ndarray], bad: set[int]) -> PlanPart:
    """Write the only shard of a plan.

    Args:
        folder: of the run.
        masks: bool [H, W] of car_01.jpg, car_02.jpg, ...
        bad: positions of the bad images, whose masks are empty.

    Returns:
        the only part of the plan.
    """
    names = [f"car_{number:02d}.jpg" for number in range(1, len(masks) + 1)]
    part = PlanPart(1, tuple(FileInfo(name, 1, "1") for name in names), 1)
    rows = rows_of(
        part.images,
        ["truncated: x" if n in bad else OK for n in range(len(masks))],
        rle_mask=["" if n in bad else rle.encode(mask) for n, mask in enumerate(masks)],
        height=[mask.shape[0] for mask in masks],
        width=[mask.shape[1] for mask in masks],
    )
    data = shards.serialize_shard(rows, shards.shard_key(folder.name, part, 0))
    storage.write_atomic(str(folder / part.shard_name(0)), data)
    return part
