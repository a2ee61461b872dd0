"""The last step of a prediction: the shards become one submission, validated before publication.

One process reads the shards in order of name, in bounded memory.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from carvana_ray import config, storage
from carvana_ray.data import quarantine
from carvana_ray.data.cars import KAGGLE, CarNames
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.csv_reader import Row
from carvana_ray.errors import (
    BadImagesError,
    FileChangedError,
    IncompleteError,
    StorageUnavailableError,
    plural,
)
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
    """Facts about all rows, collected in one pass, and about the submission."""

    sheet_cars: int  # number of cars whose rows are kept for the contact sheets
    state: str = ""  # of the submission file afterwards; "" if it does not exist
    sha256: str = ""  # of the submission
    bad: list[dict[str, Any]] = field(default_factory=list)  # rows of bad images
    corrected: int = 0  # number of images whose mask a person has corrected
    rotated: int = 0  # number of images whose EXIF orientation tells viewers to rotate them
    sheet_rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by car
    pixel_counts: dict[str, int] = field(default_factory=dict)  # height times width, by image
    cars: CarNames = KAGGLE

    def add_row(self, row: dict[str, Any]) -> None:
        """Add a row of a shard."""
        name, car = row["img"], self.cars.car_of(row["img"])
        self.pixel_counts[name] = row["height"] * row["width"]
        self.rotated += row["orientation"] != 1
        self.corrected += row["status"] == quarantine.CORRECTED
        if not quarantine.is_good(row["status"]):
            self.bad.append({**row, "rle_mask": ""})
        if car in self.sheet_rows or len(self.sheet_rows) < self.sheet_cars:
            self.sheet_rows.setdefault(car, []).append(row)


class OvertakenError(Exception):
    """Another run was faster: the images must be listed again. The message is the reason."""


class _NotPublishableError(Exception):
    """There are too many bad images for a submission."""


def merge_shards(
    flags: config.PredictFlags,
    parts: Sequence[PlanPart],
    folder: str,
    catalog: Catalog,
    published: str,
    sheet_cars: int,
) -> MergeSummary:
    """Merge the shards into a validated submission with its marker beside it.

    All shards with images of the catalog must exist. Too many bad images prevent the submission;
    that of an earlier run stays in any case until the new one replaces it.

    Args:
        published: state of the submission file before the images of the catalog were listed.

    Raises:
        OvertakenError: another run has published since, or has written a shard without an image
            of this catalog.
        IncompleteError: a shard was damaged in the meantime, or the disk is full.
    """
    summary = MergeSummary(sheet_cars, published, cars=catalog.cars)
    target, marker = storage.resolve(flags.submission_uri), storage.resolve(flags.marker_uri)
    try:
        with storage.atomic_writer(target, expected=published) as file:
            rows = _merged_rows(folder, parts, catalog, summary)
            _write_valid(file, flags, rows, catalog, summary)
            marked = storage.state(marker)  # a run that is overtaken after this leaves the marker
        summary.state = storage.state(target)
        is_newest = storage.write_atomic(marker, _marker(flags, folder, summary), expected=marked)
    except FileChangedError:
        is_newest = False
    except _NotPublishableError:
        is_newest = storage.state(target) == published
    except CorruptShardError as error:
        raise IncompleteError(f"{error}. Run the same command again to write it anew") from error
    except StorageUnavailableError:
        raise
    except OSError as error:
        raise IncompleteError(f"{target}: cannot be written: {error.strerror or error}") from error
    if not is_newest:
        raise OvertakenError(f"another run has published {target} since the images were listed")
    return summary


def _merged_rows(
    folder: str, parts: Sequence[PlanPart], catalog: Catalog, summary: MergeSummary
) -> Iterator[Row]:
    """Yield (image, run-length text) in order of name; add each row to the summary."""
    keep = set(catalog.entries)
    with prefetch_shards(parts, partial(read_shard, folder), keep) as read:
        for row in iter_rows(parts, read, keep):
            if row["status"] == quarantine.NOT_LISTED:
                raise OvertakenError(f"another run has left out {row['img']}, which is listed here")
            summary.add_row(row)
            yield row["img"], row["rle_mask"]


def _write_valid(
    file: BinaryIO,
    flags: config.PredictFlags,
    rows: Iterator[Row],
    catalog: Catalog,
    summary: MergeSummary,
) -> None:
    """Write a submission to an open file, validate it and note its hash."""
    target = storage.resolve(flags.submission_uri)
    compress = target.endswith(".gz")
    spool = None if storage.is_remote(target) else storage.parent(target)
    write_submission(file, rows, catalog.order, compress, spool)
    if not may_publish(flags, summary):
        raise _NotPublishableError
    pixels = summary.pixel_counts.__getitem__
    if faults := validate_written(file, compress, catalog.order, pixels):
        raise RuntimeError(f"{target}: invalid, please report this bug: {faults[:3]}")
    file.seek(0)
    summary.sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _marker(flags: config.PredictFlags, folder: str, summary: MergeSummary) -> bytes:
    """Return the marker of a submission: which file is complete, and the run it comes from."""
    marker = {
        "name": flags.submission,
        "sha256": summary.sha256,
        "rows": len(summary.pixel_counts),
        "bad": len(summary.bad),
        "run": storage.name(folder),
    }
    return json.dumps(marker, indent=1).encode()


def may_publish(flags: config.PredictFlags, summary: MergeSummary) -> bool:
    """Return whether the flags allow a submission with this number of bad images."""
    bad = len(summary.bad)
    return not bad or (flags.on_bad_picture == "empty" and bad <= flags.max_bad)


def is_current(flags: config.PredictFlags, summary: MergeSummary) -> bool:
    """Return whether the submission is still as the merge left it."""
    return storage.state(storage.resolve(flags.submission_uri)) == summary.state


def finish_run(
    flags: config.PredictFlags, summary: MergeSummary, folder: str, result: dict[str, Any]
) -> None:
    """Write quarantine.csv and, if there is a submission, _SUCCESS.json.

    Raises:
        BadImagesError: there is no submission of this run.
    """
    bad = [(row["img"], row["status"], row["crc32"]) for row in summary.bad]
    quarantine_uri = quarantine.write_csv(folder, bad)
    if summary.rotated:
        rotated = plural(summary.rotated, "image")
        log.info("%s with an EXIF orientation: masks match the pixels as stored", rotated)
    if not may_publish(flags, summary):
        earlier = f" {result['submission']} is of an earlier run." if summary.state else ""
        raise BadImagesError(
            f"{quarantine.summarize(bad, quarantine_uri)}. No submission was written.{earlier} "
            f"Repair the images and run again, or use --on-bad-picture empty --max-bad {len(bad)}",
            {**result, "submission": None},
        )
    success = {**result, "exif_rotated": summary.rotated, "sha256": summary.sha256}
    text = json.dumps(success, indent=1).encode()
    storage.write_atomic(storage.join(folder, SUCCESS), text, replace=True)
