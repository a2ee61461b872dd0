"""The pictures that a job is asked for: which files, for a prediction in which order of rows."""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence

from carvana_ray import storage
from carvana_ray.data import checksums, csv_reader
from carvana_ray.data import layout as carvana
from carvana_ray.errors import FileTooLargeError, InputError
from carvana_ray.storage.router import FileInfo


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The pictures to cut out.

    Attributes:
        folder: where they are.
        entries: the files, by name.
        order: the rows of the submission.
        size: (H, W) that they must have, or None for any.
        crcs: the CRC-32 that a file must have, of those that ``crc32.csv`` lists.
    """

    folder: str
    entries: list[FileInfo]
    order: list[str]
    size: tuple[int, int] | None
    crcs: dict[str, int]


def list_images(data: str) -> tuple[str, list[FileInfo]]:
    """Return the folder of the pictures, and the pictures: DATA/test where there is one, else DATA.

    Args:
        data: an absolute URI.

    Raises:
        InputError: no pictures, or names that are none.
    """
    test = storage.join(data, carvana.TEST)
    folder = test if storage.exists(test) else data
    entries = storage.list_files(folder, carvana.IMAGE_SUFFIXES)
    if not entries:
        raise InputError(f"--data: no pictures ({', '.join(carvana.IMAGE_SUFFIXES)}) in {folder}")
    carvana.require_safe_names((entry.name for entry in entries), folder)
    with contextlib.suppress(
        FileTooLargeError
    ):  # not to be allowed to is better known now than in an hour
        storage.read(storage.join(folder, entries[0].name), at_most=0)
    return folder, entries


def list_named_images(uris: Sequence[str]) -> tuple[str, list[FileInfo]]:
    """Return the folder above some pictures, and the pictures, with names from that folder on.

    Args:
        uris: absolute ones, of pictures or of folders as `pictures` takes them.

    Raises:
        InputError: one is not there, or none of both; or they have no folder in common.
    """
    found: dict[str, list[FileInfo]] = {}
    files: dict[str, list[str]] = {}
    for uri in uris:
        if uri.lower().endswith(carvana.IMAGE_SUFFIXES):
            files.setdefault(storage.parent(uri), []).append(storage.name(uri))
        else:
            folder, entries = list_images(uri)
            found[folder] = entries
    for folder, names in files.items():
        carvana.require_safe_names(names, folder)
        there = {one.name: one for one in storage.list_files(folder, carvana.IMAGE_SUFFIXES)}
        if missing := [name for name in names if name not in there]:
            raise InputError(f"{storage.join(folder, missing[0])}: no such picture")
        found[folder] = list({*found.get(folder, ()), *(there[name] for name in names)})
    above = _common_parent(list(found))
    return above, sorted(
        dataclasses.replace(one, name=storage.join(folder, one.name)[len(above.rstrip("/")) + 1 :])
        for folder, entries in found.items()
        for one in entries
    )


def _common_parent(folders: Sequence[str]) -> str:
    """Return the folder that has all of some folders in it, or is the only one.

    Raises:
        InputError: they are in several buckets, or on disk and in S3.
    """
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    same = [names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, levels)]
    if not same or (same[0] == "s3:" and len(same) < 3):  # s3:, nothing, the bucket
        raise InputError("pictures of several buckets, or of disk and S3: one command for each")
    return "/".join(same) or "/"


def load_catalog(data: str, limit: int = 0, partial: bool = False) -> Catalog:
    """List the pictures: DATA/test where there is one, else DATA itself.

    Raises:
        InputError: no pictures, or not those that ``sample_submission.csv`` lists.
    """
    if not data:
        raise InputError("--data is missing: a folder with test/, or of pictures")
    data = storage.resolve(data)
    folder, entries = list_images(data)
    names = {entry.name for entry in entries}
    crcs = checksums.load_checksums(data)
    rows = storage.join(data, carvana.SAMPLE_SUBMISSION)
    if not storage.exists(rows):
        entries = entries[: limit or None]
        return Catalog(folder, entries, [entry.name for entry in entries], None, crcs)
    listed = csv_reader.read_names(rows)
    carvana.require_safe_names(listed, rows)
    if foreign := sorted(names - set(listed)):
        raise InputError(
            f"{folder}: {len(foreign)} pictures are not in {carvana.SAMPLE_SUBMISSION}, the first "
            f"is {foreign[0]}"
        )
    missing = [name for name in listed if name not in names]
    if missing and not (partial or limit):
        raise InputError(
            f"{folder}: {len(missing)} of the {len(listed)} pictures that "
            f"{carvana.SAMPLE_SUBMISSION} lists are not there, the first is {missing[0]}; "
            "--partial takes those that are"
        )
    entries = entries[: limit or None]
    taken = {entry.name for entry in entries}
    order = [name for name in listed if name in taken]
    return Catalog(folder, entries, order, (carvana.HEIGHT, carvana.WIDTH), crcs)
