"""The map of a second look at masks: shards in, facts out. Imports little: its tasks run in
processes of their own, which should start quickly.
"""

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carvana_ray import storage
from carvana_ray.review import shape as silhouette
from carvana_ray.review.shape import MaskShape
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest.blocks import Columns

FIELDS = [one.name for one in dataclasses.fields(MaskShape)]


def measure_masks(batch: Columns) -> Columns:
    """Map a shard to columns [n]: uri, img, status, crc32, and those of `silhouette.Facts`.

    Args:
        batch: one row: uri, and which of its rows to keep.
    """
    row = dataset.single_row(batch)
    table = pq.read_table(io.BytesIO(storage.read(row["uri"])))  # merged a moment ago, so whole
    table = table.filter(pa.array(np.asarray(row["keep"], dtype=bool)))
    facts = [
        silhouette.measure(one["rle_mask"], one["height"], one["width"])
        for one in table.select(["rle_mask", "height", "width"]).to_pylist()
    ]
    return {
        "uri": np.full(len(table), row["uri"]),
        **{name: table[name].to_numpy() for name in ("img", "status", "crc32")},
        **{name: np.array([getattr(one, name) for one in facts]) for name in FIELDS},
    }
