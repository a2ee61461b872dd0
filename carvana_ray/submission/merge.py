"""The last step of a prediction: shards into one submission, checked before it is published.

One process walks through the shards in order of name, in bounded memory.
"""

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from carvana_ray import config, storage
from carvana_ray.data import layout as carvana
from carvana_ray.data import quarantine
from carvana_ray.data.catalog import Catalog
from carvana_ray.errors import BadImagesError, IncompleteError, StorageUnavailableError
from carvana_ray.submission import shards
from carvana_ray.submission import writer as submission
from carvana_ray.submission.plan import PlanPart

log = logging.getLogger(__name__)

SUCCESS = "_SUCCESS.json"


@dataclass
class MergeSummary:
    """What one walk through all rows has found.

    Attributes:
        sheet_cars: number of cars whose rows are kept for the contact sheets.
        bad: rows of bad pictures.
        rotated: pictures whose EXIF orientation says that viewers turn them; their masks are those
            of the pixels as they are stored.
        shown: rows to show, by car.
        pixels: of each picture.
    """

    sheet_cars: int
    bad: list[dict[str, Any]] = field(default_factory=list)
    rotated: int = 0
    sheet_rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pixel_counts: dict[str, int] = field(default_factory=dict)

    def add_row(self, row: dict[str, Any]) -> None:
        """Take a row of a shard."""
        name, car = row["img"], carvana.car_of(row["img"])
        self.pixel_counts[name] = row["height"] * row["width"]
        self.rotated += row["orientation"] != 1
        if row["status"] != quarantine.OK:
            self.bad.append({**row, "rle_mask": ""})
        if car in self.sheet_rows or len(self.sheet_rows) < self.sheet_cars:
            self.sheet_rows.setdefault(car, []).append(row)


class _HeldBack(Exception):
    pass


def merge_shards(
    flags: config.PredictFlags,
    parts: Sequence[PlanPart],
    folder: str,
    catalogue: Catalog,
    target: str,
    sheet_cars: int,
) -> MergeSummary:
    """Merge shards into a submission and check it; without one if bad pictures forbid it.

    Args:
        flags: what is allowed.
        parts: of the plan; all shards that hold pictures of the catalogue are there.
        folder: of the run.
        catalogue: the pictures that the submission is of.
        target: the file; one of an earlier run is replaced, or removed if there is none now.
        sheet_cars: number of cars whose rows are kept for the contact sheets.

    Raises:
        Unfinished: a shard was damaged meanwhile, or the disk is full.
    """
    merged = MergeSummary(sheet_cars)

    def walk() -> Iterator[tuple[str, str]]:
        read, keep = functools.partial(shards.read_shard, folder), set(catalogue.entries)
        with submission.prefetch_shards(parts, read, keep) as ahead:
            for row in submission.iter_rows(parts, ahead, keep):
                merged.add_row(row)
                yield row["img"], row["rle_mask"]

    packed = target.endswith(".gz")
    try:
        spool = None if storage.is_remote(target) else storage.parent(target)
        with storage.atomic_writer(target) as file:
            submission.write_submission(file, walk(), catalogue.order, packed, spool)
            if not may_publish(flags, merged):
                raise _HeldBack
            faults = submission.validate_written(
                file, packed, catalogue.order, merged.pixel_counts.__getitem__
            )
            if faults:
                raise RuntimeError(f"{target}: not as it should be, please report: {faults[:3]}")
    except _HeldBack:
        storage.remove(target)  # one of an earlier run would pass for this one's
    except shards.CorruptShardError as error:
        raise IncompleteError(f"{error}; the same command again makes it anew") from error
    except StorageUnavailableError:
        raise
    except OSError as error:
        raise IncompleteError(f"{target}: cannot be written: {error.strerror or error}") from error
    return merged


def may_publish(flags: config.PredictFlags, merged: MergeSummary) -> bool:
    """Return whether bad pictures leave room for a submission."""
    return not merged.bad or (flags.on_bad_picture == "empty" and len(merged.bad) <= flags.max_bad)


def finish_run(
    flags: config.PredictFlags, merged: MergeSummary, folder: str, result: dict[str, Any]
) -> None:
    """Write quarantine.csv and, where there is a submission, _SUCCESS.json last.

    Raises:
        Quarantined: there is none.
    """
    bad = [(row["img"], row["status"], row["crc32"]) for row in merged.bad]
    listed = quarantine.write_csv(folder, bad)
    if merged.rotated:
        log.info(
            "%d pictures have an EXIF orientation; their masks are those of the pixels as stored",
            merged.rotated,
        )
    if not may_publish(flags, merged):
        raise BadImagesError(
            f"{quarantine.summarize(bad, listed)}. No submission was written: mend the pictures "
            f"and run again, or use --on-bad-picture empty --max-bad {len(bad)}",
            {**result, "submission": None},
        )
    success = json.dumps({**result, "exif_rotated": merged.rotated}, indent=1).encode()
    storage.write_atomic(storage.join(folder, SUCCESS), success, replace=True)
