"""The last step of a prediction: the shards become one submission, validated before publication.

One process reads the shards in order of name, in bounded memory.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from carvana_ray import config, storage
from carvana_ray.data import quarantine
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.csv_reader import Row
from carvana_ray.data.layout import car_of
from carvana_ray.errors import BadImagesError, IncompleteError, StorageUnavailableError, plural
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.shards import CorruptShardError, read_shard
from carvana_ray.submission.writer import (
    iter_rows,
    prefetch_shards,
    validate_written,
    write_submission,
)

log = logging.getLogger(__name__)

SUCCESS = "_SUCCESS.json"


@dataclass
class MergeSummary:
    """Facts about all rows, collected in one pass."""

    sheet_cars: int  # number of cars whose rows are kept for the contact sheets
    bad: list[dict[str, Any]] = field(default_factory=list)  # rows of bad images
    rotated: int = 0  # number of images whose EXIF orientation tells viewers to rotate them
    sheet_rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by car
    pixel_counts: dict[str, int] = field(default_factory=dict)  # height times width, by image

    def add_row(self, row: dict[str, Any]) -> None:
        """Add a row of a shard."""
        name, car = row["img"], car_of(row["img"])
        self.pixel_counts[name] = row["height"] * row["width"]
        self.rotated += row["orientation"] != 1
        if row["status"] != quarantine.OK:
            self.bad.append({**row, "rle_mask": ""})
        if car in self.sheet_rows or len(self.sheet_rows) < self.sheet_cars:
            self.sheet_rows.setdefault(car, []).append(row)


class _NotPublishableError(Exception):
    """There are too many bad images for a submission."""


def merge_shards(
    flags: config.PredictFlags,
    parts: Sequence[PlanPart],
    folder: str,
    catalog: Catalog,
    target: str,
    sheet_cars: int,
) -> MergeSummary:
    """Merge the shards into a validated submission. Too many bad images prevent the submission.

    All shards with images of the catalog must exist. A file `target` of an earlier run is replaced,
    or removed if this run has no submission.

    Raises:
        IncompleteError: a shard was damaged in the meantime, or the disk is full.
    """
    summary = MergeSummary(sheet_cars)
    rows = _merged_rows(folder, parts, catalog, summary)
    try:
        with storage.atomic_writer(target) as file:
            compress = target.endswith(".gz")
            spool = None if storage.is_remote(target) else storage.parent(target)
            write_submission(file, rows, catalog.order, compress, spool)
            if not may_publish(flags, summary):
                raise _NotPublishableError
            pixels = summary.pixel_counts.__getitem__
            if faults := validate_written(file, compress, catalog.order, pixels):
                raise RuntimeError(f"{target}: invalid, please report this bug: {faults[:3]}")
    except _NotPublishableError:
        storage.remove(target)  # else an earlier run's file would pass for the result of this run
    except CorruptShardError as error:
        raise IncompleteError(f"{error}. Run the same command again to write it anew") from error
    except StorageUnavailableError:
        raise
    except OSError as error:
        raise IncompleteError(f"{target}: cannot be written: {error.strerror or error}") from error
    return summary


def _merged_rows(
    folder: str, parts: Sequence[PlanPart], catalog: Catalog, summary: MergeSummary
) -> Iterator[Row]:
    """Yield (image, run-length text) in order of name; add each row to the summary."""
    keep = set(catalog.entries)
    with prefetch_shards(parts, partial(read_shard, folder), keep) as read:
        for row in iter_rows(parts, read, keep):
            summary.add_row(row)
            yield row["img"], row["rle_mask"]


def may_publish(flags: config.PredictFlags, summary: MergeSummary) -> bool:
    """Return whether the flags allow a submission with this number of bad images."""
    bad = len(summary.bad)
    return not bad or (flags.on_bad_picture == "empty" and bad <= flags.max_bad)


def finish_run(
    flags: config.PredictFlags, summary: MergeSummary, folder: str, result: dict[str, Any]
) -> None:
    """Write quarantine.csv and, if there is a submission, _SUCCESS.json last.

    Raises:
        BadImagesError: there is no submission.
    """
    bad = [(row["img"], row["status"], row["crc32"]) for row in summary.bad]
    quarantine_uri = quarantine.write_csv(folder, bad)
    if summary.rotated:
        rotated = plural(summary.rotated, "image")
        log.info("EXIF orientation ignored in %s: masks match the pixels as stored", rotated)
    if not may_publish(flags, summary):
        raise BadImagesError(
            f"{quarantine.summarize(bad, quarantine_uri)}. No submission was written. Repair the "
            f"images and run again, or use --on-bad-picture empty --max-bad {len(bad)}",
            {**result, "submission": None},
        )
    success = json.dumps({**result, "exif_rotated": summary.rotated}, indent=1).encode()
    storage.write_atomic(storage.join(folder, SUCCESS), success, replace=True)
