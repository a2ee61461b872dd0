"""The shards of a prediction run: their bytes, and what is left to do.

    predict/<run_id>/shards/00017-of-00391.parquet          the plan's 18th run of pictures
    predict/<run_id>/shards/0002-00000-of-00001.parquet     of the plan's second part

What is left to do is what is not there, or is there and damaged: a shard holds a hash of its rows,
and of the run and the place that they belong to.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carvana_ray import storage
from carvana_ray.data import quarantine
from carvana_ray.errors import FileMissingError
from carvana_ray.storage.router import FileInfo
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
READERS = 8  # shards read at a time: what a store on a network needs to hide its latency
DIGEST = b"carvana_ray.sha256"


class CorruptShardError(ValueError):
    """A shard is not what its place in the plan asks for; it must be made again."""


@dataclass(frozen=True)
class ShardTask:
    """A shard that is to be made.

    Attributes:
        part, shard: which.
        replace: there is one already, not to be believed.
    """

    part: PlanPart
    shard: int
    replace: bool = False

    @property
    def name(self) -> str:
        """Its file."""
        return self.part.shard_name(self.shard)

    @property
    def entries(self) -> tuple[FileInfo, ...]:
        """Its pictures."""
        return self.part.shard(self.shard)


@dataclass(frozen=True)
class PendingShards:
    """What is left to do of a run.

    Attributes:
        tasks: shards to make.
        needed: number of shards that hold pictures of the catalogue.
        bad: pictures in the shards that are there and could not be read.
        damaged: what is wrong with the shards that are there and are made again.
    """

    tasks: list[ShardTask]
    needed: int
    bad: int
    damaged: list[str]


def pending(
    folder: str, parts: Sequence[PlanPart], catalogue: Sequence[FileInfo], crcs: Mapping[str, int]
) -> PendingShards:
    """Return what is left to do: the one place that decides it. Reads shards, but no picture.

    Args:
        folder: of the run.
        parts: of its plan.
        catalogue: the pictures wanted today.
        crcs: from picture to the CRC-32 that it must have, where that is known.
    """
    wanted = set(catalogue)
    needed = [
        (part, shard)
        for part in parts
        for shard in range(part.shards)
        if not wanted.isdisjoint(part.shard(shard))
    ]
    there = list_shards(folder)

    def look(one: tuple[PlanPart, int]) -> int | CorruptShardError | None:
        part, shard = one
        if part.shard_name(shard) not in there:
            return None
        try:
            return _bad_in(read_shard(folder, part, shard), part.shard(shard), wanted, crcs)
        except CorruptShardError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        verdicts = list(pool.map(look, needed))
    return PendingShards(
        tasks=[
            ShardTask(part, shard, replace=verdict is not None)
            for (part, shard), verdict in zip(needed, verdicts, strict=True)
            if not isinstance(verdict, int)
        ],
        needed=len(needed),
        bad=sum(verdict for verdict in verdicts if isinstance(verdict, int)),
        damaged=[str(verdict) for verdict in verdicts if isinstance(verdict, CorruptShardError)],
    )


def _bad_in(
    rows: pa.Table, entries: Sequence[FileInfo], wanted: set[FileInfo], crcs: Mapping[str, int]
) -> int:
    """Return the number of bad pictures of a shard.

    Raises:
        Damaged: a picture was gone when it was made, or was not yet what it must be.
    """
    bad = 0
    facts = zip(entries, rows["status"].to_pylist(), rows["crc32"].to_pylist(), strict=True)
    for entry, status, crc in facts:
        if entry not in wanted:
            continue
        if status.startswith("missing"):
            raise CorruptShardError(f"{entry.name} was missing, and is there again")
        if crc and not status.startswith("checksum") and crcs.get(entry.name, crc) != crc:
            raise CorruptShardError(f"{entry.name} was read with another CRC-32 than it must have")
        if status.startswith("checksum") and crcs.get(entry.name, crc) == crc:
            raise CorruptShardError(
                f"{entry.name} was refused for a CRC-32 that it need not have any more"
            )
        bad += status != quarantine.OK
    return bad


def list_shards(folder: str) -> set[str]:
    """Return the names of the shards that are there, as `Part.shard_name` gives them."""
    place = storage.join(folder, "shards")
    if not storage.exists(place):
        return set()
    return {f"shards/{entry.name}" for entry in storage.list_files(place, (".parquet",))}


def shard_key(run: str, part: PlanPart, shard: int) -> str:
    """Return what names a shard and all that its rows depend on.

    Args:
        run: the last name of the run's folder.
        part, shard: place in the plan.
    """
    entries = [[entry.name, entry.size, entry.version] for entry in part.shard(shard)]
    return digest([run, part.shard_name(shard), entries])


def _digest(key: str, table: pa.Table) -> str:
    """Return the SHA-256 of a shard's key and rows, however they lie in memory.

    Of the runs, which are all but all of a shard, the lengths are part of the JSON text, and the
    bytes follow it as they are.
    """
    runs = table["rle_mask"]
    body = table.drop_columns(["rle_mask"]).to_pydict()
    lengths = pc.binary_length(runs).to_pylist()
    sha256 = hashlib.sha256(json.dumps([key, body, lengths]).encode())
    for text in runs:
        sha256.update(text.as_buffer() or b"")
    return sha256.hexdigest()


def serialize_shard(rows: pa.Table, key: str) -> bytes:
    """Return a shard's file, made in memory.

    Args:
        rows: columns of `SCHEMA`, and ``row`` and ``rows``: where in the shard a row belongs,
            and how many the shard has.
        key: of the shard; it is part of the hash.

    Raises:
        RuntimeError: the rows are not all rows of the shard, in order.
    """
    counts = set(rows["rows"].to_pylist())
    if counts != {len(rows)} or rows["row"].to_pylist() != list(range(len(rows))):
        raise RuntimeError(
            f"a shard of {counts} pictures came in as a block of {len(rows)} rows: "
            f"{rows['img'].to_pylist()[:3]}...; it is not written"
        )
    table = rows.select(SCHEMA.names).cast(SCHEMA)
    sha256 = _digest(key, table)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({DIGEST: sha256}), buffer, compression="zstd")
    return buffer.getvalue()


def read_shard(folder: str, part: PlanPart, shard: int) -> pa.Table:
    """Return a shard's rows, columns of `SCHEMA`: those that its place in the plan asks for.

    Raises:
        Damaged: what is there is not that.
    """
    uri = storage.join(folder, part.shard_name(shard))
    try:
        data = storage.read(uri)
    except FileMissingError as gone:
        raise CorruptShardError(str(gone)) from gone
    try:
        table = pq.read_table(io.BytesIO(data))
        sha256 = (table.schema.metadata or {})[DIGEST].decode()
        table = table.replace_schema_metadata().cast(SCHEMA)
        expected = _digest(shard_key(storage.name(folder), part, shard), table)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise CorruptShardError(f"{uri}: {str(error).splitlines()[0]}") from error
    if sha256 != expected:
        raise CorruptShardError(
            f"{uri}: its rows and its place in the plan do not match their SHA-256"
        )
    if table["img"].to_pylist() != [entry.name for entry in part.shard(shard)]:
        raise CorruptShardError(f"{uri}: its pictures are not those of the plan")
    return table
