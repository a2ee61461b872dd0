"""Last map of prediction: blocks of masks become shards, each written whole.

This module imports no torch: its tasks run in processes of their own, which must start quickly.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carvana_ray import rle, storage
from carvana_ray.data.quarantine import NOT_LISTED, UNREACHABLE, is_good
from carvana_ray.submission.shards import serialize_shard


def write_shards(
    rows: pa.Table, *, folder: str, keys: Mapping[str, str], replace: Collection[str] = ()
) -> pa.Table:
    """Write the shards in a block. Ray Data may have joined several to one block.

    Args:
        rows: columns of `MaskPredictor`; ``file`` names the shard of a row.
        folder: of the run.
        keys: `shard_key` of each shard.
        replace: shards that exist but are damaged.

    Returns:
        a row per shard with the columns file, rows (written, of images in the catalog), bad (number
        of bad images among them), example (one of these), problem: why the shard could not be
        written, or "", and usable: the shard was written, or at least one of its images could be
        reached. An image that cannot be reached is a problem and not a bad image: it must never
        count as predicted.
    """
    results = []
    for file in rows["file"].unique().to_pylist():
        shard, uri = rows.filter(pc.equal(rows["file"], file)), storage.join(folder, file)
        results.append({"file": file, **_write_shard(shard, uri, keys[file], file in replace)})
    return pa.Table.from_pylist(results)


def _write_shard(rows: pa.Table, uri: str, key: str, replace: bool) -> dict[str, Any]:
    columns = zip(rows["img"].to_pylist(), rows["status"].to_pylist(), strict=True)
    statuses = [(name, status) for name, status in columns if status != NOT_LISTED]
    bad = [f"{name} ({status})" for name, status in statuses if not is_good(status)]
    unreachable = [f"{name} ({text})" for name, text in statuses if text.startswith(UNREACHABLE)]
    problem, usable = next(iter(unreachable), ""), len(unreachable) < len(statuses)
    if not problem:
        texts = [rle.text_from_bounds(bounds) for bounds in rows["run_bounds"].to_pylist()]
        masks = rows.append_column("rle_mask", pa.array(texts, pa.large_string()))
        try:
            storage.write_atomic(uri, serialize_shard(masks, key), replace=replace)
        except OSError as error:
            problem, usable = f"{uri}: {error.strerror or error}", False
    return {
        "rows": 0 if problem else len(statuses),
        "bad": 0 if problem else len(bad),
        "example": bad[0] if bad else "",
        "problem": problem,
        "usable": usable,
    }
