"""Write the images and masks that ``review.csv`` lists into a folder, to be corrected; no Ray.

rows of the submission -> read_many -> make_files, in threads -> the folder and coco.json
"""

import itertools
import logging
import shlex
import time
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from carvana_ray import config, storage
from carvana_ray.errors import (
    BadImageError,
    FileMissingError,
    FileTooLargeError,
    InputError,
    plural,
)
from carvana_ray.images.validate import MAX_BYTES
from carvana_ray.review import coco
from carvana_ray.review.folder import COCO, README, ReviewFolder, StoredMask
from carvana_ray.review.image_files import ImageFiles, make_files
from carvana_ray.review.listed import ListedImage, iter_masks, read_listed, require_rows
from carvana_ray.review.prediction import Prediction, find_prediction
from carvana_ray.review.ranking import FILE
from carvana_ray.review.readme import write_readme
from carvana_ray.stages.ray_metrics import meter

log = logging.getLogger(__name__)

AT_ONCE = 32  # image files in memory
THREADS = 4  # each takes about 12 bytes per pixel of an image
MAX_NAMED = 3  # images in a message

Row = tuple[ListedImage, str]  # an image and the run-length text of its mask
Made = tuple[ImageFiles, StoredMask]


@dataclass
class Tally:
    """What became of the listed images.

    Attributes:
        written: number of images written.
        kept: names of the masks that a person has changed.
        left_out: reason by image.
        unusable: reason by changed mask.
    """

    written: int = 0
    kept: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)

    def log(self, listed: int) -> None:
        """Log what a person should know."""
        if self.left_out:
            of = f"{len(self.left_out)} of {plural(listed, 'listed image')}"
            log.warning("left out: %s: %s", of, _first(self.left_out))
        if self.unusable:
            count = plural(len(self.unusable), "changed mask")
            log.warning("%s cannot be used as it is: %s", count, _first(self.unusable))


def _first(reasons: dict[str, str]) -> str:
    more = " ..." if len(reasons) > MAX_NAMED else ""
    named = list(reasons.items())[:MAX_NAMED]
    return "; ".join(f"{name}: {reason}" for name, reason in named) + more


def run(flags: config.ReviewFlags) -> dict[str, Any]:
    """Write the folder; return the job's result.

    Raises:
        InputError: a file of the prediction is missing, or files of two predictions are mixed.
        IncompleteError: another command writes to the folder.
    """
    began = time.monotonic()
    prediction = find_prediction(flags)
    listed = read_listed(storage.join(storage.resolve(flags.out), FILE))
    listed = listed[: flags.limit or None]
    require_rows(prediction.submission, listed)
    folder, tally = ReviewFolder.open(storage.resolve(flags.to_uri)), Tally()
    words = prediction.next_words(flags.to_uri)
    if listed:
        _warn_of_two_folders(prediction.corrections, folder.uri)
        storage.require_writable(folder.uri)
        folder.save_notes()  # the folder is one of `review` from its first file on
        _write_all(folder, prediction, listed, tally)
        shown = [image for image in listed if image.name not in tally.left_out]
        text = write_readme(flags.to_uri, words, shown)
        storage.write_atomic(storage.join(folder.uri, README), text, replace=True)
        tally.log(len(listed))
    return {
        "folder": folder.uri,
        "images": tally.written,
        "listed": len(listed),
        "missing": len(tally.left_out),
        "kept": len(tally.kept),
        "earlier": len(folder.noted.keys() - {image.mask_name for image in listed}),
        "next": shlex.join(words),
        "seconds": round(time.monotonic() - began, 1),
    }


def _warn_of_two_folders(used: str, uri: str) -> None:
    """Warn if the prediction used another folder of corrections: a command takes one only."""
    if used and storage.resolve(used) != uri:
        log.warning(
            "the prediction used the corrected masks of %s, and the next one would use only those "
            "of %s; name --to %s to have all in one folder",
            *(used, uri, used),
        )


def _write_all(
    folder: ReviewFolder, prediction: Prediction, listed: Sequence[ListedImage], tally: Tally
) -> None:
    """Write all images, and coco.json of their masks."""
    rows = iter_masks(prediction.submission, listed)
    target = storage.join(folder.uri, COCO)
    with meter("review", len(listed)) as progress, storage.atomic_writer(target) as file:
        entries = _write_images(folder, prediction.images, rows, tally)
        for part in coco.to_json(entries):
            file.write(part)
            progress.set(tally.written + len(tally.left_out))
        if not tally.written:
            raise InputError(
                f"--data {prediction.images}: none of {plural(len(listed), 'listed image')} can be "
                f"used: {_first(tally.left_out)}; name the folder that predict used"
            )


def _write_images(
    folder: ReviewFolder, images: str, rows: Iterator[Row], tally: Tally
) -> Iterator[coco.Entry]:
    """Write the images, masks and outlines of rows; yield the entries of coco.json."""
    write = partial(_write_image, folder, folder.list_masks())
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(itertools.islice(rows, AT_ONCE)):
            uris = [storage.join(images, listed.name) for listed, _ in batch]
            made = list(pool.map(write, batch, storage.read_many(uris, MAX_BYTES)))
            yield from _write_masks(folder, batch, made, tally)


def _write_image(
    folder: ReviewFolder, present: Set[str], row: Row, data: bytes | Exception
) -> Made | str:
    """Write an image and its outline; its mask is still to be written.

    Args:
        folder: the folder.
        present: names of its masks.
        row: image and mask.
        data: bytes of the image, or the error of reading it.

    Returns:
        its files and the mask that the folder has, or the reason why it is left out.
    """
    listed, runs = row
    stored = StoredMask()
    if listed.mask_name in present:
        stored = folder.read_mask(listed.mask_name)
    if isinstance(data, FileMissingError):
        return "no such file"
    if isinstance(data, FileTooLargeError):
        return str(data)
    if isinstance(data, Exception):
        raise data
    try:
        made = make_files(listed, data, runs, stored.data if stored.changed else None)
    except BadImageError as error:
        return str(error)
    folder.write_image(made)
    return made, stored


def _write_masks(
    folder: ReviewFolder, batch: Sequence[Row], made: Sequence[Made | str], tally: Tally
) -> Iterator[coco.Entry]:
    """Write the masks of some images, and count; yield the entries of coco.json."""
    masks = []
    for (listed, _), result in zip(batch, made, strict=True):
        if isinstance(result, str):
            tally.left_out[listed.name] = result
            continue
        files, stored = result
        tally.written += 1
        if files.problem:
            tally.unusable[listed.mask_name] = files.problem
        masks.append((listed.mask_name, files.mask, stored))
        yield files.entry
    tally.kept |= folder.write_masks(masks)
