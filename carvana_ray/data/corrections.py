"""Masks that a person has corrected, and the images that they belong to.

    FOLDER/train/                images                 as `review` writes them, and as training
    FOLDER/train_masks/          their masks            data lies
    FOLDER/_review.json          SHA-256 of the masks as `review` wrote them

A mask that is still as `review` wrote it is no correction. A folder without ``train_masks/`` holds
masks alone.

The version of a corrected image names its mask: ``1700000000 corrected 0123456789abcdef``. So what
is made of the image has another version whenever its correction changes.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from carvana_ray import storage
from carvana_ray.data.layout import MASKS
from carvana_ray.data.pairs import (
    MASK_SUFFIXES,
    Fault,
    UnpairedError,
    describe_unclear,
    find_masks,
    find_unclear,
)
from carvana_ray.errors import InputError, StorageUnavailableError, plural
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

REVIEW_FILE, REVIEW_FORMAT = "_review.json", 1
DIGITS = 16  # hexadecimal, of a SHA-256
MAX_NAMED = 3  # masks without an image in a message
_MARK = " corrected "


@dataclass(frozen=True)
class Corrections:
    """The corrections of a folder.

    Attributes:
        uris: URI of the corrected mask, by image name.
        digests: start of the SHA-256 of its bytes, 16 hexadecimal digits, by image name.
        unchanged: number of masks that are still as `review` wrote them.
        unused: names of the masks that belong to no image of the job.
    """

    uris: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    unchanged: int = 0
    unused: Collection[str] = ()

    def mark(self, image: FileInfo) -> FileInfo:
        """Return an image with the version of its correction, if it has one."""
        digest = self.digests.get(image.name)
        return replace(image, version=f"{image.version}{_MARK}{digest}") if digest else image

    def log(self, folder: str) -> None:
        """Log in one line what a folder gives: a warning if a mask belongs to no image."""
        if folder:
            level = logging.WARNING if self.unused else logging.INFO
            log.log(level, "%s", self.describe(folder))

    def describe(self, folder: str) -> str:
        """Return in a sentence what a folder gives: masks that are used, and those that are not."""
        count = len(set(self.uris.values()))
        used = "is used as it is" if count == 1 else "are used as they are"
        parts = [f"{plural(count, 'mask')} of {folder} {used}"]
        if self.unchanged:
            wrote = "is as review wrote it" if self.unchanged == 1 else "are as review wrote them"
            parts.append(f"{self.unchanged} {wrote}")
        if self.unused:
            names = ", ".join(list(self.unused)[:MAX_NAMED])
            more = " ..." if len(self.unused) > MAX_NAMED else ""
            belong = "belongs" if len(self.unused) == 1 else "belong"
            parts.append(f"{len(self.unused)} {belong} to no image: {names}{more}")
        return "; ".join(parts)


NO_CORRECTIONS = Corrections()


def stored_file(image: FileInfo) -> FileInfo:
    """Return an image as it was listed, without the version of its correction."""
    return replace(image, version=image.version.partition(_MARK)[0])


def correction_of(image: FileInfo) -> str:
    """Return the digest of an image's correction, or "" if it has none."""
    return image.version.partition(_MARK)[2]


def mask_folder(folder: str) -> str:
    """Return the URI of the masks in a folder of corrections, which may not exist."""
    uri = storage.resolve(folder)
    masks = storage.join(uri, MASKS)
    return masks if storage.exists(masks) else uri


def require_masks(folder: str) -> None:
    """Raise `InputError` if a folder of corrections does not exist, or has no masks."""
    with _flag_named():
        masks = mask_folder(folder)
        if not (storage.list_files(masks, MASK_SUFFIXES, 1) or storage.list_dirs(masks)):
            raise _no_masks(masks)


def load_corrections(
    folder: str, images: Iterable[str], places: Mapping[str, str] = {}
) -> Corrections:
    """Return the corrections of a folder for the images of a job.

    Names are those of `pairs.pair_with_masks`. The mask of an image in a sub-folder is in the same
    sub-folder of the masks. Each mask of an image is read, for its hash.

    Args:
        folder: value of --corrections; "" has none.
        images: names of the images.
        places: sub-folder of the mask by image name, where it is not that of the image.

    Raises:
        InputError: the folder does not exist, has no masks, or its list of reviewed masks is
            damaged; or an image has two masks.
        StorageUnavailableError: a mask cannot be reached.
    """
    if not folder:
        return NO_CORRECTIONS
    named: dict[str, dict[str, str]] = {"": {}}  # image by name in its sub-folder, by sub-folder
    for image in images:
        place = places.get(image, storage.parent(image))
        named.setdefault(place, {})[storage.name(image)] = image
    with _flag_named():
        base = mask_folder(folder)
        masks = _list_masks(base, named)
        reviewed = load_reviewed(storage.resolve(folder))
        sha256 = _hash_masks(base, masks & reviewed.keys())
        unchanged = {mask for mask in sha256 if sha256[mask] == reviewed[mask]}
        found = _match(folder, named, masks - unchanged)
        sha256 |= _hash_masks(base, set(found.values()) - sha256.keys())
    return Corrections(
        {image: storage.join(base, mask) for image, mask in found.items()},
        {image: sha256[mask][:DIGITS] for image, mask in found.items()},
        len(unchanged),
        sorted(masks - unchanged - set(found.values())),
    )


@contextlib.contextmanager
def _flag_named() -> Iterator[None]:
    """Name the flag in the errors that the with-block raises."""
    try:
        yield
    except StorageUnavailableError as error:
        where = f"--corrections {error.filename}"
        raise type(error)(error.errno, error.strerror, where) from error
    except UnpairedError:
        raise
    except InputError as error:
        raise InputError(f"--corrections {error}") from error


def _no_masks(uri: str) -> InputError:
    return InputError(f"{uri}: no masks ({', '.join(MASK_SUFFIXES)})")


def _list_masks(base: str, places: Iterable[str]) -> set[str]:
    """Return the masks in a folder and in some of its sub-folders: paths relative to it."""
    masks = set()
    for place in places:
        uri = storage.join(base, place) if place else base
        if place and not storage.exists(uri):
            continue
        start = f"{place}/" if place else ""
        masks |= {f"{start}{file.name}" for file in storage.list_files(uri, MASK_SUFFIXES)}
    if not masks:
        raise _no_masks(base)
    return masks


def load_reviewed(folder: str) -> dict[str, str]:
    """Return the SHA-256 of the masks in a folder as `review` wrote them, by name.

    Raises:
        InputError: the file that lists them is damaged.
    """
    uri = storage.join(folder, REVIEW_FILE)
    if not storage.exists(uri):
        return {}
    data = storage.read(uri)
    try:
        body = json.loads(data)
        if body["format"] != REVIEW_FORMAT:
            raise ValueError(f"format {body['format']}, this version reads {REVIEW_FORMAT}")
        return {str(name): str(sha256) for name, sha256 in body["masks"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{uri}: damaged ({error}); without the file all masks of the folder are corrections, "
            "and review needs another folder"
        ) from error


def _hash_masks(base: str, masks: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of masks, by name."""
    names, found = sorted(masks), {}
    answers = storage.read_many([storage.join(base, name) for name in names])
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, Exception):
            raise answer
        found[name] = hashlib.sha256(answer).hexdigest()
    return found


def _match(
    folder: str, named: Mapping[str, Mapping[str, str]], masks: Collection[str]
) -> dict[str, str]:
    """Return the mask by image. Arguments as in `load_corrections`.

    Raises:
        UnpairedError: an image has two masks, or the mask of another image.
    """
    matched, unclear = dict[str, str](), list[Fault]()
    names: dict[str, list[str]] = {}
    for mask in masks:
        names.setdefault(storage.parent(mask), []).append(storage.name(mask))
    for place, images in named.items():
        found = find_masks(images, names.get(place, []))
        unclear += find_unclear(found)
        start = f"{place}/" if place else ""
        matched |= {images[name]: f"{start}{best[0]}" for name, best in found.items() if best}
    if unclear:
        raise UnpairedError(
            f"--corrections {folder}: {describe_unclear(unclear, 'image')}", unclear
        )
    return matched
