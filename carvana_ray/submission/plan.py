"""The plan of a prediction run: which pictures, cut into which shards.

    predict/<run_id>/plan-0001.json     the pictures, in order of name, and their cut
    predict/<run_id>/plan-0002.json     pictures that are new or have changed since

The names and contents of all shards follow from the plan alone, so whoever makes a shard makes the
same one, and no part of the plan ever changes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.data import layout as carvana
from carvana_ray.errors import InputError
from carvana_ray.storage.router import FileInfo

FORMAT = 3
SHARD_SIZE = 256  # 39 MB of gray pictures at a quarter, 2.3 MB of text; 391 shards for 100,064
MIN_SHARD_SIZE = 16  # a batch of the network


def run_id(settings: dict[str, Any]) -> str:
    """Return the name of a prediction run: a hash of all that its masks depend on."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def max_shard_size(downscale: int) -> int:
    """Return the pictures of a shard at most where nobody asks: 157 MB of gray ones, or 256."""
    return min(SHARD_SIZE, 64 * downscale**2)


def shard_size(pictures: int, asked: int = 0, most: int = SHARD_SIZE) -> int:
    """Return the pictures of a shard at most: as asked, or `most`, or about 64 shards of fewer."""
    return asked or max(MIN_SHARD_SIZE, min(most, -(-pictures // 64)))


@dataclass(frozen=True)
class PlanPart:
    """A part of the plan: pictures in order of name, cut into shards of about equal length.

    Attributes:
        number: from 1.
        pictures: with the size and version that were planned.
        shards: how many.
    """

    number: int
    images: tuple[FileInfo, ...]
    shards: int

    @property
    def name(self) -> str:
        """The part's file name."""
        return f"plan-{self.number:04d}.json"

    def shard_name(self, shard: int) -> str:
        """Return the file of a shard, 0 <= shard < shards."""
        part = "" if self.number == 1 else f"{self.number:04d}-"
        return f"shards/{part}{shard:05d}-of-{self.shards:05d}.parquet"

    def shard(self, shard: int) -> tuple[FileInfo, ...]:
        """Return the pictures of a shard; lengths differ by one at most."""
        count = len(self.images)
        return self.images[count * shard // self.shards : count * (shard + 1) // self.shards]

    def to_bytes(self) -> bytes:
        """Return the bytes of the part's file."""
        pictures = [[entry.name, entry.size, entry.version] for entry in self.images]
        body = {"format": FORMAT, "part": self.number, "shards": self.shards, "pictures": pictures}
        return json.dumps({"sha256": digest(body), **body}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "PlanPart":
        """Return the part of a file that `to_bytes` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is none, or damaged.
            InputError: it names what is no plain file name.
        """
        body = json.loads(data)
        if digest({key: body[key] for key in body if key != "sha256"}) != body["sha256"]:
            raise ValueError("its SHA-256 is another one")
        pictures = tuple(FileInfo(*row) for row in body["pictures"])
        if not 0 < body["shards"] <= len(pictures):
            raise ValueError(f"{body['shards']} shards of {len(pictures)} pictures")
        carvana.require_safe_names((entry.name for entry in pictures), "plan")
        return cls(body["part"], pictures, body["shards"])


def plan_new(
    parts: Sequence[PlanPart], listing: Sequence[FileInfo], asked: int = 0, most: int = SHARD_SIZE
) -> PlanPart | None:
    """Return the part that plans what no part has planned, or None if there is nothing.

    Args:
        parts: those there are.
        listing: the catalogue today; a changed picture counts as new.
        asked: pictures a shard at most, 0 for the default.
        most: the default for many pictures.
    """
    planned = {entry for part in parts for entry in part.images}
    new = sorted(entry for entry in listing if entry not in planned)
    if not new:
        return None
    number = max((part.number for part in parts), default=0) + 1
    return PlanPart(number, tuple(new), -(-len(new) // shard_size(len(new), asked, most)))


def load_plan(folder: str) -> list[PlanPart]:
    """Return the parts of the plan of a run's folder, in order.

    Raises:
        InputError: one is damaged.
    """
    if not storage.exists(folder):
        return []
    parts = []
    for entry in storage.list_files(folder, (".json",)):
        if entry.name.startswith("plan-"):
            uri = storage.join(folder, entry.name)
            data = storage.read(uri)
            try:
                parts.append(part := PlanPart.from_bytes(data))
                if part.name != entry.name:
                    raise ValueError(f"it is {part.name}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{uri}: damaged ({error}); remove it, and its pictures are planned again"
                ) from error
    return parts


def digest(body: Any) -> str:
    """Return the SHA-256 of plain values, as they are written in JSON."""
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
