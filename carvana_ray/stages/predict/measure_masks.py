"""Measure the masks of shards. Ray runs this in processes of its own, so it imports little."""

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
    """Measure the masks of some shards.

    Args:
        batch: one row: ``uris`` of the shards, and ``keep``, whether to measure each of their
            images.

    Returns:
        a row per kept image: ``uri``, ``img``, ``status``, ``crc32``, and `FIELDS`.
    """
    row = single_row(batch)
    uris = list(row["uris"])
    shards = [_read_shard(*shard) for shard in zip(uris, storage.read_many(uris), strict=True)]
    table = pa.concat_tables(shards).filter(pa.array(np.asarray(row["keep"], dtype=bool)))
    columns = (table[name].to_pylist() for name in ("rle_mask", "height", "width"))
    shapes = [measure(*mask) for mask in zip(*columns, strict=True)]
    return {
        **{name: table[name].to_numpy() for name in ("uri", "img", "status", "crc32")},
        **{name: np.array([getattr(shape, name) for shape in shapes]) for name in FIELDS},
    }


def _read_shard(uri: str, data: bytes | Exception) -> pa.Table:
    if isinstance(data, Exception):
        raise data
    table = pq.read_table(io.BytesIO(data))  # the merge verifies it
    return table.replace_schema_metadata().append_column("uri", pa.array([uri] * len(table)))
