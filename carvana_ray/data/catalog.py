"""The images that a job works on: which files, and for a prediction the order of its rows."""

import dataclasses
import logging
import random
from collections.abc import Mapping, Sequence

from carvana_ray import storage
from carvana_ray.data import layout
from carvana_ray.data.cars import KAGGLE, CarNames, load_car_names
from carvana_ray.data.checksums import load_checksums
from carvana_ray.data.csv_reader import read_names
from carvana_ray.data.layout import IMAGE_SUFFIXES, SAMPLE_SUBMISSION, require_safe_names
from carvana_ray.data.listing import describe_skipped, image_suffixes, scan_folder
from carvana_ray.data.packed import advice_for_file, advised, inner_folder, require_unpacked
from carvana_ray.data.pairs import MASK_SUFFIXES
from carvana_ray.errors import InputError, StorageAccessError, plural
from carvana_ray.storage.base import FileInfo

log = logging.getLogger(__name__)

PROBES = 100  # images that are tried if the first may not be read


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The images to predict.

    Attributes:
        folder: URI of their folder.
        entries: the files, sorted by name.
        order: their names in the order of the submission's rows.
        size: the (H, W) that all must have, or None for any.
        crcs: known CRC-32 of files, by name.
        cars: how their names give cars.
        skipped: number of files and folders that are no images, by kind.
    """

    folder: str
    entries: list[FileInfo]
    order: list[str]
    size: tuple[int, int] | None
    crcs: dict[str, int]
    cars: CarNames = KAGGLE
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


def load_catalog(data: str, limit: int = 0, partial: bool = False, cars_by: str = "") -> Catalog:
    """Return the images of ``DATA/test`` if that folder exists, else those of ``DATA``.

    Args:
        data: value of --data.
        limit: take only this many images, the first by name; 0 takes all.
        partial: accept that images listed in ``sample_submission.csv`` are missing.
        cars_by: see `load_car_names`.

    Raises:
        InputError: there are no images, or they do not match ``sample_submission.csv``.
    """
    folder, entries, skipped = scan_images(data)
    data = storage.resolve(data)
    crcs = load_checksums(data)
    order = [entry.name for entry in entries]
    size = None
    listed = storage.join(data, SAMPLE_SUBMISSION)
    if storage.exists(listed):
        order = _match_list(listed, folder, set(order), partial or bool(limit))
        size = layout.HEIGHT, layout.WIDTH
    elif advice := advice_for_file(listed):
        log.warning("the submission's rows come in order of name: %s", advice)
    entries = entries[: limit or None]
    names = {entry.name for entry in entries}
    order = [name for name in order if name in names]
    cars = load_car_names(data, cars_by, names)
    return Catalog(folder, entries, order, size, crcs, cars, skipped)


def _match_list(uri: str, folder: str, names: set[str], partial: bool) -> list[str]:
    """Return the names in ``sample_submission.csv`` after comparing them with the files.

    Raises:
        InputError: a file is not listed; or a listed file is missing and `partial` is false.
    """
    rows = read_names(uri)
    require_safe_names(rows, uri)
    if unlisted := sorted(names - set(rows)):
        raise InputError(
            f"{folder}: {plural(len(unlisted), 'image')} not listed in {SAMPLE_SUBMISSION}, the "
            f"first is {unlisted[0]}"
        )
    missing = [name for name in rows if name not in names]
    if missing and not partial:
        raise InputError(
            f"{folder}: missing {len(missing)} of {plural(len(rows), 'image')} listed in "
            f"{SAMPLE_SUBMISSION}, the first is {missing[0]}; pass --partial to predict only those "
            "that exist"
        )
    return rows


def list_images(data: str) -> tuple[str, list[FileInfo]]:
    """Return the folder ``DATA/test`` if it exists, else ``DATA``, and the images in it.

    Raises:
        InputError: --data is missing, the folder has no images, or a file name is not safe.
        StorageAccessError: reading the images is not permitted.
    """
    folder, entries, _ = scan_images(data)
    return folder, entries


def scan_images(data: str) -> tuple[str, list[FileInfo], Mapping[str, int]]:
    """Return `list_images`, and the number of other files and folders there, by kind."""
    folder = image_dir(data)
    entries, skipped = list_images_in(folder)
    require_access(folder, entries)
    return folder, entries, skipped


def list_images_in(folder: str) -> tuple[list[FileInfo], Mapping[str, int]]:
    """Return the images in a folder, at least one, and the number of others by kind.

    Raises:
        InputError: the folder has no images, or a file name is not safe.
    """
    with advised(folder):
        entries, skipped = scan_folder(folder)
        _require_images(folder, entries, skipped)
    return entries, skipped


def image_dir(data: str) -> str:
    """Return the folder of the images to predict; argument and errors as of `list_images`."""
    if not data:
        raise InputError("--data is missing: a folder of images, or one that contains test/")
    data = storage.resolve(data)
    require_unpacked(data)
    test = storage.join(data, layout.TEST)
    return inner_folder(test, image_suffixes()) if storage.exists(test) else data


def image_and_mask_dirs(data: str) -> tuple[str, str]:
    """Return the folders of the training images and masks.

    Raises:
        InputError: --data is missing.
    """
    if not data:
        raise InputError("--data is missing: name a folder with train/ and train_masks/")
    data = storage.resolve(data)
    require_unpacked(data)
    return (
        inner_folder(storage.join(data, layout.TRAIN), image_suffixes()),
        inner_folder(storage.join(data, layout.MASKS), MASK_SUFFIXES),
    )


def list_folder(folder: str, limit: int | None = None) -> list[FileInfo]:
    """Return the images in a folder, at least one.

    Args:
        folder: URI of the folder.
        limit: see `storage.list_files`.

    Raises:
        InputError: the folder has no images, or a file name is not safe.
    """
    with advised(folder):
        entries = storage.list_files(folder, image_suffixes(), limit)
        _require_images(folder, entries)
    return entries


def list_masks(folder: str, limit: int | None = None) -> list[FileInfo]:
    """Return the masks in a folder. Arguments as of `list_folder`.

    Raises:
        InputError: the folder does not exist.
    """
    with advised(folder):
        return storage.list_files(folder, MASK_SUFFIXES, limit)


def _require_images(
    folder: str, entries: Sequence[FileInfo], skipped: Mapping[str, int] = {}
) -> None:
    """Raise `InputError` if there are no images in a folder, or if a name is not safe."""
    if not entries:
        others = f"; left out: {describe_skipped(skipped)}" if skipped else ""
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"--data: no images ({suffixes}) in {folder}{others}")
    require_safe_names((entry.name for entry in entries), folder)


def require_access(folder: str, entries: Sequence[FileInfo]) -> None:
    """Raise `StorageAccessError` if the rights to read images are missing.

    If the first one is not permitted, others are tried: they may be permitted.
    """
    denied = None
    for group in (entries[:1], random.sample(entries, min(PROBES, len(entries)))):
        for answer in storage.read_many([storage.join(folder, e.name) for e in group], at_most=0):
            if not isinstance(answer, StorageAccessError):
                return
            denied = denied or answer
    if denied:
        raise denied
