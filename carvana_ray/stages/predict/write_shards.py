"""The last map of a prediction: blocks of masks become shards, each written whole.

Imports no torch: these tasks run in processes of their own, which should start quickly.
"""

import functools
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from carvana_ray import rle, storage
from carvana_ray.data import quarantine
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.submission import shards
from carvana_ray.submission.shards import ShardTask


def write_dataset(
    masks: ray.data.Dataset, folder: str, tasks: Sequence[ShardTask], writers: int
) -> ray.data.Dataset:
    """Return a data set that writes the shards of some masks; its rows are those of `write_shards`.

    Args:
        masks: of `masks.masks_of`.
        folder: of the run.
        tasks: the shards.
        writers: tasks at a time. Without a bound Ray starts a process for each block that waits,
            and what these need to start is more than what they do.
    """
    keys = {
        task.name: shards.shard_key(storage.name(folder), task.part, task.shard) for task in tasks
    }
    replace = {task.name for task in tasks if task.replace}
    return masks.map_batches(
        functools.partial(write_shards, folder=folder, keys=keys, replace=replace),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=writers),
        num_cpus=0,  # bounded by their number; for a CPU they would wait behind the readers
        max_retries=dataset.RETRIES,
    )


def write_shards(
    rows: pa.Table, *, folder: str, keys: Mapping[str, str], replace: Collection[str] = ()
) -> pa.Table:
    """Write the shards that a block holds, one or several, each whole.

    Args:
        rows: as `masks.masks_of` returns them.
        folder: of the run.
        keys: `shards.key` of each file.
        replace: files that are there, and not to be believed.

    Returns:
        a row a shard: file, rows (written), bad (pictures), example (of these), problem: why the
        shard is not there, if it is not. A picture that cannot be reached is a problem, not a bad
        picture: no mask of it must ever be counted as made.
    """
    found = []
    for file in rows["file"].unique().to_pylist():
        own = rows.filter(pc.equal(rows["file"], file))
        named = list(zip(own["img"].to_pylist(), own["status"].to_pylist(), strict=True))
        bad = [f"{name} ({status})" for name, status in named if status != quarantine.OK]
        gone = [text for text in bad if f"({quarantine.UNREACHABLE}" in text]
        problem = gone[0] if gone else ""
        if not gone:
            texts = [rle.text_from_bounds(ends) for ends in own["run_bounds"].to_pylist()]
            own = own.append_column("rle_mask", pa.array(texts, pa.large_string()))
            data = shards.serialize_shard(own, keys[file])
            try:
                storage.write_atomic(storage.join(folder, file), data, replace=file in replace)
            except OSError as error:
                problem = f"{storage.join(folder, file)}: {error.strerror or error}"
        found.append(
            {
                "file": file,
                "rows": 0 if problem else len(own),
                "bad": 0 if problem else len(bad),
                "example": bad[0] if bad else "",
                "problem": problem,
            }
        )
    return pa.Table.from_pylist(found)
