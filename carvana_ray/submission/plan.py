"""The plan of a prediction run: which images it has, and how they are cut into shards.

    predict/<run_id>/plan-0001.json     the images, in order of name, and the number of shards
    predict/<run_id>/plan-0002.json     images that are new or have changed since

The plan alone determines the names and contents of all shards, so every process that writes a
shard writes the same one. A part of the plan never changes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.data.layout import require_safe_names
from carvana_ray.errors import InputError, plural
from carvana_ray.storage import FileInfo

FORMAT = 3
SHARD_SIZE = 256  # images: 39 MB of gray at a quarter, 2.3 MB of text; 391 shards for 100,064
MIN_SHARD_SIZE = 16  # one batch of the network
_TARGET_SHARDS = 64  # of a small catalog, so that all workers have work


def run_id(settings: dict[str, Any]) -> str:
    """Return the name of a prediction run: a hash of everything that its masks depend on."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def max_shard_size(downscale: int) -> int:
    """Return the default maximum number of images per shard: 157 MB of gray, at most 256."""
    return min(SHARD_SIZE, 64 * downscale**2)


def shard_size(images: int, requested: int = 0, maximum: int = SHARD_SIZE) -> int:
    """Return the maximum number of images per shard: `requested`, or if that is 0 the default.

    The default is `maximum` for many images. Fewer images are cut into about 64 shards.
    """
    return requested or max(MIN_SHARD_SIZE, min(maximum, -(-images // _TARGET_SHARDS)))


@dataclass(frozen=True)
class PlanPart:
    """A part of the plan: images in order of name, cut into shards of about equal length."""

    number: int  # from 1
    images: tuple[FileInfo, ...]  # with their size and version at planning time
    shards: int  # number of shards

    @property
    def name(self) -> str:
        """File name of the part."""
        return f"plan-{self.number:04d}.json"

    def shard_name(self, shard: int) -> str:
        """Return the file name of a shard, 0 <= shard < shards."""
        prefix = "" if self.number == 1 else f"{self.number:04d}-"
        return f"shards/{prefix}{shard:05d}-of-{self.shards:05d}.parquet"

    def shard(self, shard: int) -> tuple[FileInfo, ...]:
        """Return the images of a shard. The lengths of shards differ by at most one."""
        count = len(self.images)
        return self.images[count * shard // self.shards : count * (shard + 1) // self.shards]

    def to_bytes(self) -> bytes:
        """Return the contents of the part's file."""
        images = [[image.name, image.size, image.version] for image in self.images]
        body = {"format": FORMAT, "part": self.number, "shards": self.shards, "pictures": images}
        return json.dumps({"sha256": digest(body), **body}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "PlanPart":
        """Return the part with these contents of its file.

        Raises:
            ValueError, KeyError, TypeError: the data are damaged or not a part.
            InputError: an image has an unsafe file name.
        """
        body = json.loads(data)
        if digest({key: body[key] for key in body if key != "sha256"}) != body["sha256"]:
            raise ValueError("the SHA-256 does not match")
        images = tuple(FileInfo(*row) for row in body["pictures"])
        if not 0 < body["shards"] <= len(images):
            raise ValueError(f"shards: {body['shards']} for {plural(len(images), 'image')}")
        require_safe_names((image.name for image in images), "plan")
        return cls(body["part"], images, body["shards"])


def plan_new(
    parts: Sequence[PlanPart],
    catalog: Sequence[FileInfo],
    requested: int = 0,
    maximum: int = SHARD_SIZE,
) -> PlanPart | None:
    """Return a part with the images that are not planned yet, or None if all are.

    A changed image counts as new. `requested` and `maximum` are those of `shard_size`.
    """
    planned = {image for part in parts for image in part.images}
    new = sorted(image for image in catalog if image not in planned)
    if not new:
        return None
    number = max((part.number for part in parts), default=0) + 1
    return PlanPart(number, tuple(new), -(-len(new) // shard_size(len(new), requested, maximum)))


def load_plan(folder: str) -> list[PlanPart]:
    """Return the parts of the plan in a run's folder, in order.

    Raises:
        InputError: a part is damaged.
        OSError: a part cannot be read.
    """
    if not storage.exists(folder):
        return []
    names = [file.name for file in storage.list_files(folder, (".json",))]
    uris = [storage.join(folder, name) for name in names if name.startswith("plan-")]
    return [_parse_part(*part) for part in zip(uris, storage.read_many(uris), strict=True)]


def _parse_part(uri: str, data: bytes | Exception) -> PlanPart:
    if isinstance(data, Exception):
        raise data
    try:
        part = PlanPart.from_bytes(data)
        if part.name != storage.name(uri):
            raise ValueError(f"it is {part.name}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{uri}: damaged ({error}). Remove the file to plan its images again"
        raise InputError(message) from error
    return part


def digest(body: Any) -> str:
    """Return the SHA-256 of the JSON text of plain values."""
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
