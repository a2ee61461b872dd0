"""The shards of a prediction run: their bytes, and which of them must still be written.

    predict/<run_id>/shards/00017-of-00391.parquet          18th shard of the plan's first part
    predict/<run_id>/shards/0002-00000-of-00001.parquet     first shard of the plan's second part

A shard holds a hash of its rows, its run and its place in the plan. A shard that is missing, or
does not match its hash, is pending.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carvana_ray import storage
from carvana_ray.data import quarantine
from carvana_ray.errors import FileMissingError, plural
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import PlanPart, digest

SCHEMA = pa.schema(
    [
        ("img", pa.string()),
        ("rle_mask", pa.large_string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("crc32", pa.int64()),
        ("orientation", pa.int8()),
        ("status", pa.string()),
    ]
)
DIGEST = b"carvana_ray.sha256"


class CorruptShardError(ValueError):
    """A shard is not the one that its place in the plan requires; it must be written again."""


@dataclass(frozen=True)
class ShardTask:
    """A shard to write."""

    part: PlanPart
    shard: int
    replace: bool = False  # whether a file exists that is damaged or out of date

    @property
    def name(self) -> str:
        """File name of the shard."""
        return self.part.shard_name(self.shard)

    @property
    def entries(self) -> tuple[FileInfo, ...]:
        """Images of the shard."""
        return self.part.shard(self.shard)


@dataclass(frozen=True)
class FinishedShard:
    """A shard that need not be written. The numbers are those of images of the catalog."""

    task: ShardTask
    images: int
    bad: int  # of these images
    crashed: tuple[FileInfo, ...]  # images whose reading killed its process


@dataclass(frozen=True)
class PendingShards:
    """The work that a run still has to do."""

    tasks: list[ShardTask]
    needed: int  # number of shards that hold images of the catalog
    bad: int  # number of bad images in the finished shards
    damaged: list[str]  # reason for each shard to replace
    images: int = 0  # number of images of the catalog in the shards to write
    crashed: tuple[FinishedShard, ...] = ()  # the shards that have such images
    crashing: Sequence[FileInfo] = ()  # images that still do, to be left out of the tasks

    def retry(self, crashing: Sequence[FileInfo]) -> "PendingShards":
        """Return the work if of the `crashed` images only these still kill their process."""
        retried = [shard for shard in self.crashed if not set(shard.crashed) <= set(crashing)]
        return replace(
            self,
            tasks=[*self.tasks, *(shard.task for shard in retried)],
            bad=self.bad - sum(shard.bad for shard in retried),
            images=self.images + sum(shard.images for shard in retried),
            crashing=crashing,
        )


def pending(
    folder: str, parts: Sequence[PlanPart], catalog: Sequence[FileInfo], crcs: Mapping[str, int]
) -> PendingShards:
    """Return the shards of a run that must still be written. Reads shards, but no images.

    `crcs` holds the known CRC-32 of images, by name.
    """
    wanted = set(catalog)
    needed = [
        (part, shard)
        for part in parts
        for shard in range(part.shards)
        if not wanted.isdisjoint(part.shard(shard))
    ]
    existing = list_shards(folder)

    def check(place: tuple[PlanPart, int]) -> FinishedShard | CorruptShardError | None:
        """Return the shard, or why it must be replaced; None if it is missing."""
        part, shard = place
        if part.shard_name(shard) not in existing:
            return None
        try:
            rows = read_shard(folder, part, shard)
            return _check_rows(rows, ShardTask(part, shard, replace=True), wanted, crcs)
        except CorruptShardError as error:
            return error

    tasks, finished, damaged = list[ShardTask](), list[FinishedShard](), list[str]()
    with ThreadPoolExecutor(storage.READ_AHEAD) as pool:
        for place, result in zip(needed, pool.map(check, needed), strict=True):
            if isinstance(result, FinishedShard):
                finished.append(result)
                continue
            tasks.append(ShardTask(*place, replace=result is not None))
            if result is not None:
                damaged.append(str(result))
    bad = sum(shard.bad for shard in finished)
    images = sum(image in wanted for task in tasks for image in task.entries)
    crashed = tuple(shard for shard in finished if shard.crashed)
    return PendingShards(tasks, len(needed), bad, damaged, images, crashed)


def _check_rows(
    rows: pa.Table, task: ShardTask, wanted: set[FileInfo], crcs: Mapping[str, int]
) -> FinishedShard:
    """Return the finished shard with these rows, as far as its images are wanted.

    Raises:
        CorruptShardError: an image must be read again: it was missing, or had another CRC-32.
    """
    count, bad, crashed = 0, 0, []
    statuses, crc32s = rows["status"].to_pylist(), rows["crc32"].to_pylist()
    columns = zip(task.entries, statuses, crc32s, strict=True)
    for image, status, crc in columns:
        if image not in wanted:
            continue
        required = crcs.get(image.name, crc)
        if status.startswith(quarantine.MISSING):
            raise CorruptShardError(f"{image.name} was missing and exists again")
        if status.startswith("checksum"):
            if required == crc:
                raise CorruptShardError(f"{image.name} was rejected for a CRC-32 that is now right")
        elif crc and required != crc:
            raise CorruptShardError(f"{image.name} was read with a CRC-32 that is now wrong")
        count, bad = count + 1, bad + (not quarantine.is_good(status))
        if status.startswith(f"{quarantine.CRASHED}:"):
            crashed.append(image)
    return FinishedShard(task, count, bad, tuple(crashed))


def list_shards(folder: str) -> set[str]:
    """Return the names of the existing shards, in the form of `PlanPart.shard_name`."""
    shards = storage.join(folder, "shards")
    if not storage.exists(shards):
        return set()
    return {f"shards/{file.name}" for file in storage.list_files(shards, (".parquet",))}


def shard_key(run: str, part: PlanPart, shard: int) -> str:
    """Return the cache key of a shard: a hash of its name and of everything its rows depend on."""
    images = [[image.name, image.size, image.version] for image in part.shard(shard)]
    return digest([run, part.shard_name(shard), images])


def _row_digest(key: str, table: pa.Table) -> str:
    """Return the SHA-256 of a shard's key and rows, independent of the table's memory layout.

    Run-length texts are nearly all of a shard. Their lengths go into the JSON text, and their bytes
    follow it as they are.
    """
    texts = table["rle_mask"]
    body = table.drop_columns(["rle_mask"]).to_pydict()
    lengths = pc.binary_length(texts).to_pylist()
    sha256 = hashlib.sha256(json.dumps([key, body, lengths]).encode())
    for text in texts:
        sha256.update(text.as_buffer() or b"")
    return sha256.hexdigest()


def serialize_shard(rows: pa.Table, key: str) -> bytes:
    """Return the Parquet file of a shard.

    Args:
        rows: the columns of `SCHEMA`, ``row`` (index of the row in the shard) and ``rows`` (number
            of rows of the shard).
        key: result of `shard_key`.

    Raises:
        RuntimeError: the rows are not all rows of one shard, in order.
    """
    counts = set(rows["rows"].to_pylist())
    if counts != {len(rows)} or rows["row"].to_pylist() != list(range(len(rows))):
        raise RuntimeError(
            f"a block of {plural(len(rows), 'row')} that is not one whole shard in order; not "
            f"written: {rows['img'].to_pylist()[:3]}..."
        )
    table = rows.select(SCHEMA.names).cast(SCHEMA)
    table = table.replace_schema_metadata({DIGEST: _row_digest(key, table)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_shard(folder: str, part: PlanPart, shard: int) -> pa.Table:
    """Return the rows of a shard, with the columns of `SCHEMA`.

    Raises:
        CorruptShardError: the file is missing, damaged, or not the shard of this place in the plan.
    """
    uri = storage.join(folder, part.shard_name(shard))
    try:
        data = storage.read(uri)
    except FileMissingError as error:
        raise CorruptShardError(str(error)) from error
    try:
        table = pq.read_table(io.BytesIO(data))
        sha256 = (table.schema.metadata or {})[DIGEST].decode()
        table = table.replace_schema_metadata().cast(SCHEMA)
        expected = _row_digest(shard_key(storage.name(folder), part, shard), table)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise CorruptShardError(f"{uri}: {str(error).splitlines()[0]}") from error
    if sha256 != expected:
        raise CorruptShardError(f"{uri}: the SHA-256 does not match the rows and the plan")
    if table["img"].to_pylist() != [image.name for image in part.shard(shard)]:
        raise CorruptShardError(f"{uri}: the images are not those of the plan")
    return table
