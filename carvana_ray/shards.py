"""The plan of a prediction run; the names and bytes of its shards.

    predict/<run_id>/plan-0001.json                    the pictures, in order of name, and their cut
    predict/<run_id>/shards/00017-of-00391.parquet     the plan's 18th run of pictures
    predict/<run_id>/plan-0002.json                    pictures that are new or have changed since
    predict/<run_id>/shards/0002-00000-of-00001.parquet

Names and contents follow from the plan alone, so whoever makes a shard makes the same one, and what
is left to do is what is not there.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carvana_ray import storage
from carvana_ray.storage import Entry

FORMAT = 1
OK = "ok"  # status of a picture that was read; else the reason why not
SCHEMA = pa.schema(
    [
        ("img", pa.string()),
        ("rle_mask", pa.large_string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("crc32", pa.int64()),
        ("status", pa.string()),
    ]
)
SHARD_SIZE = 256  # 39 MB of gray pictures at a quarter, 2.3 MB of text; 391 shards for 100,064
SMALLEST = 16  # a batch of the network


def run_id(settings: dict[str, Any]) -> str:
    """Return the name of a prediction run: a hash of all that its masks depend on."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shard_size(pictures: int, asked: int = 0) -> int:
    """Return the pictures of a shard at most: as asked, else 256, or about 64 shards of fewer."""
    return asked or max(SMALLEST, min(SHARD_SIZE, -(-pictures // 64)))


@dataclass(frozen=True)
class Part:
    """A part of the plan: pictures in order of name, cut into shards of about equal length.

    Attributes:
        number: from 1.
        pictures: with the size and version that were planned.
        shards: how many.
    """

    number: int
    pictures: tuple[Entry, ...]
    shards: int

    @property
    def name(self) -> str:
        """The part's file name."""
        return f"plan-{self.number:04d}.json"

    def shard_name(self, shard: int) -> str:
        """Return the file of a shard, 0 <= shard < shards."""
        part = "" if self.number == 1 else f"{self.number:04d}-"
        return f"shards/{part}{shard:05d}-of-{self.shards:05d}.parquet"

    def shard(self, shard: int) -> tuple[Entry, ...]:
        """Return the pictures of a shard; lengths differ by one at most."""
        count = len(self.pictures)
        return self.pictures[count * shard // self.shards : count * (shard + 1) // self.shards]

    def to_bytes(self) -> bytes:
        """Return the bytes of the part's file."""
        pictures = [[entry.name, entry.size, entry.version] for entry in self.pictures]
        body = {"format": FORMAT, "part": self.number, "shards": self.shards, "pictures": pictures}
        return json.dumps(body).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Part":
        """Return the part of a file that `to_bytes` wrote."""
        body = json.loads(data)
        return cls(body["part"], tuple(Entry(*row) for row in body["pictures"]), body["shards"])


def next_part(parts: Sequence[Part], listing: Sequence[Entry], asked: int = 0) -> Part | None:
    """Return the part that plans what no part has planned, or None if there is nothing.

    Args:
        parts: those there are.
        listing: the catalogue today; a changed picture counts as new.
        asked: pictures a shard at most, 0 for the default.
    """
    planned = {entry for part in parts for entry in part.pictures}
    new = sorted(entry for entry in listing if entry not in planned)
    if not new:
        return None
    return Part(len(parts) + 1, tuple(new), -(-len(new) // shard_size(len(new), asked)))


def read_parts(folder: str) -> list[Part]:
    """Return the parts of the plan of a run's folder, in order."""
    if not storage.exists(folder):
        return []
    names = [entry.name for entry in storage.listing(folder, (".json",))]
    plans = [name for name in names if name.startswith("plan-")]
    return [Part.from_bytes(storage.read(storage.join(folder, name))) for name in plans]


def done(folder: str) -> set[str]:
    """Return the names of the shards that are there, as `Part.shard_name` gives them."""
    place = storage.join(folder, "shards")
    if not storage.exists(place):
        return set()
    return {f"shards/{entry.name}" for entry in storage.listing(place, (".parquet",))}


def to_bytes(rows: pa.Table) -> bytes:
    """Return a shard's file, made in memory.

    Args:
        rows: columns of `SCHEMA`, and ``place`` and ``count``: where in the shard a row belongs,
            and how many the shard has.

    Raises:
        RuntimeError: the rows are not all rows of the shard, in order.
    """
    counts = set(rows["count"].to_pylist())
    if counts != {len(rows)} or rows["place"].to_pylist() != list(range(len(rows))):
        raise RuntimeError(
            f"a shard of {counts} pictures came in as a block of {len(rows)} rows: "
            f"{rows['img'].to_pylist()[:3]}...; it is not written"
        )
    buffer = io.BytesIO()
    pq.write_table(rows.select(SCHEMA.names).cast(SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def read_shard(uri: str) -> pa.Table:
    """Return a shard's rows, columns of `SCHEMA`."""
    return pq.read_table(io.BytesIO(storage.read(uri)), schema=SCHEMA)
