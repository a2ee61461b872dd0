"""Measure the masks of a shard. Ray runs this in processes of its own, so it imports little."""

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carvana_ray import storage
from carvana_ray.review.shape import MaskShape, measure
from carvana_ray.stages.ingest.blocks import Columns, single_row

FIELDS = [field.name for field in dataclasses.fields(MaskShape)]


def measure_masks(batch: Columns) -> Columns:
    """Measure the masks of one shard.

    Args:
        batch: one row: ``uri`` of the shard, and ``keep``, whether to measure each of its images.

    Returns:
        a row per kept image: ``uri``, ``img``, ``status``, ``crc32``, and `FIELDS`.
    """
    row = single_row(batch)
    table = pq.read_table(io.BytesIO(storage.read(row["uri"])))  # the merge has just verified it
    table = table.filter(pa.array(np.asarray(row["keep"], dtype=bool)))
    columns = (table[name].to_pylist() for name in ("rle_mask", "height", "width"))
    shapes = [measure(*mask) for mask in zip(*columns, strict=True)]
    return {
        "uri": np.full(len(table), row["uri"]),
        **{name: table[name].to_numpy() for name in ("img", "status", "crc32")},
        **{name: np.array([getattr(shape, name) for shape in shapes]) for name in FIELDS},
    }
