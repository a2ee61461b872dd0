"""Last map of prediction: blocks of masks become shards, each written whole.

This module imports no torch: its tasks run in processes of their own, which must start quickly.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carvana_ray import rle, storage
from carvana_ray.data.quarantine import OK, UNREACHABLE
from carvana_ray.submission.shards import serialize_shard


def write_shards(
    rows: pa.Table, *, folder: str, keys: Mapping[str, str], replace: Collection[str] = ()
) -> pa.Table:
    """Write the shards in a block, each whole. Ray Data may have joined several to one block.

    Args:
        rows: columns of `MaskPredictor`, ``file`` names the shard of a row.
        folder: of the run.
        keys: `shards.key` of each shard.
        replace: shards that exist but are damaged.

    Returns:
        a row per shard with the columns file, rows (written), bad (number of bad images), example
        (one of these), and problem: why the shard could not be written, or "". An image that
        cannot be reached is a problem and not a bad image: it must never count as predicted.
    """
    files = rows["file"].unique().to_pylist()
    written = [
        _write_shard(rows.filter(pc.equal(rows["file"], file)), folder, keys[file], file in replace)
        for file in files
    ]
    return pa.Table.from_pylist(
        [{"file": file, **result} for file, result in zip(files, written, strict=True)]
    )


def _write_shard(rows: pa.Table, folder: str, key: str, replace: bool) -> dict[str, Any]:
    statuses = zip(rows["img"].to_pylist(), rows["status"].to_pylist(), strict=True)
    bad = [f"{name} ({status})" for name, status in statuses if status != OK]
    unreachable = [text for text in bad if f"({UNREACHABLE}" in text]
    problem = unreachable[0] if unreachable else ""
    if not problem:
        texts = [rle.text_from_bounds(bounds) for bounds in rows["run_bounds"].to_pylist()]
        masks = rows.append_column("rle_mask", pa.array(texts, pa.large_string()))
        uri = storage.join(folder, rows["file"][0].as_py())
        try:
            storage.write_atomic(uri, serialize_shard(masks, key), replace=replace)
        except OSError as error:
            problem = f"{uri}: {error.strerror or error}"
    return {
        "rows": 0 if problem else len(rows),
        "bad": 0 if problem else len(bad),
        "example": bad[0] if bad else "",
        "problem": problem,
    }
