"""The last map of a prediction: blocks of masks become shards, each written whole.

Imports no torch: these tasks run in processes of their own, which should start quickly.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from carvana_ray import config, rle, shards, storage
from carvana_ray.errors import InputError, Unfinished
from carvana_ray.shards import Task
from carvana_ray.stages import dataset

LOST_BLOCKS = 16  # with a picture that kills in each, before it is the machines that are at fault
LOST_A_REPLICA = 4  # more of them: those that it had when its machine was lost
PROBLEMS = 8  # shards that cannot be written, or have pictures that cannot be reached
BAD_AT_MOST = 100, 0.01  # pictures, or this share of them: with more it is not the pictures' fault


def written(
    masks: ray.data.Dataset, folder: str, tasks: Sequence[Task], writers: int
) -> ray.data.Dataset:
    """Return a data set that writes the shards of some masks; its rows are those of `write_shards`.

    Args:
        masks: of `masks.masks_of`.
        folder: of the run.
        tasks: the shards.
        writers: tasks at a time. Without a bound Ray starts a process for each block that waits,
            and what these need to start is more than what they do.
    """
    keys = {task.name: shards.key(storage.name(folder), task.part, task.shard) for task in tasks}
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
        bad = [f"{name} ({status})" for name, status in named if status != shards.OK]
        gone = [text for text in bad if f"({dataset.UNREACHABLE}" in text]
        problem = gone[0] if gone else ""
        if not gone:
            texts = [rle.text_of(ends) for ends in own["ends"].to_pylist()]
            own = own.append_column("rle_mask", pa.array(texts, pa.large_string()))
            data = shards.to_bytes(own, keys[file])
            try:
                storage.publish(storage.join(folder, file), data, replace=file in replace)
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


class Watch:
    """Looks at what comes out, and ends the run early where it is not the pictures' fault."""

    def __init__(self, flags: config.Predict, bad: int, pictures: int, folder: str) -> None:
        allowed = max(BAD_AT_MOST[0], int(BAD_AT_MOST[1] * pictures))
        self._allowed = max(allowed, flags.max_bad if flags.on_bad_picture == "empty" else 0)
        self._bad, self._folder = bad, folder
        self._problems: list[str] = []

    def see(self, row: dict[str, Any]) -> None:
        """Take the row of a shard.

        Raises:
            InputError: too many bad pictures.
            Unfinished: too many problems.
        """
        self._bad += row["bad"]
        if self._bad > self._allowed:
            raise InputError(
                f"--data {self._folder}: {self._bad} bad pictures so far, the last is "
                f"{row['example']}; more than {self._allowed} are not looked at: is it the right "
                "folder? Masks made so far are kept"
            )
        if row["problem"]:
            self._problems.append(row["problem"])
            if len(self._problems) >= PROBLEMS:
                self.close()

    def close(self) -> None:
        """Raise `Unfinished` if there was a problem."""
        if self._problems:
            raise Unfinished(
                f"{len(self._problems)} shards could not be made, the first for "
                f"{self._problems[0]}; all others are kept, run again to go on"
            )
