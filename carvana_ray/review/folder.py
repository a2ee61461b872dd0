"""The folder in which a person corrects masks. A mask that a person has changed is never lost.

    FOLDER/train/         images
    FOLDER/train_masks/   masks, to be corrected
    FOLDER/outlines/      outlines of the masks, for a layer in an editor
    FOLDER/_review.json   SHA-256 of the masks as they were written

Masks are compared by their bytes. The hash of a new mask is noted before the mask is written, so
that a mask of a killed command does not pass for a correction.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from carvana_ray import storage
from carvana_ray.data.corrections import REVIEW_FILE, REVIEW_FORMAT, load_reviewed
from carvana_ray.data.layout import MASKS, TRAIN
from carvana_ray.errors import FileMissingError, IncompleteError, InputError
from carvana_ray.review.image_files import ImageFiles

OUTLINES, COCO, README = "outlines", "coco.json", "README.txt"


@dataclass(frozen=True)
class StoredMask:
    """A mask in the folder.

    Attributes:
        state: of the file, see `storage.state`; "" if there is no file.
        data: its bytes.
        changed: whether a person has changed it.
    """

    state: str = ""
    data: bytes = b""
    changed: bool = False


@dataclass
class ReviewFolder:
    """The folder at a URI.

    Attributes:
        uri: of the folder.
        noted: SHA-256 of each mask as it was written, by file name.
        state: of the file of these notes, see `storage.state`.
    """

    uri: str
    noted: dict[str, str] = field(default_factory=dict)
    state: str = ""

    @classmethod
    def open(cls, uri: str) -> "ReviewFolder":
        """Return the folder at a URI, which may not exist yet.

        Raises:
            InputError: it has images or masks of another origin, or its notes are damaged.
        """
        state = storage.state(storage.join(uri, REVIEW_FILE))  # older than the notes
        if not state and (taken := {TRAIN, MASKS, OUTLINES} & set(storage.list_dirs(uri))):
            raise InputError(
                f"--to {uri}: has {min(taken)}/ but no {REVIEW_FILE}, so review has not written "
                "it; name another folder"
            )
        return cls(uri, load_reviewed(uri), state)

    def save_notes(self) -> None:
        """Write the noted hashes.

        Raises:
            IncompleteError: another command has written them meanwhile.
        """
        body = {"format": REVIEW_FORMAT, "masks": dict(sorted(self.noted.items()))}
        uri = storage.join(self.uri, REVIEW_FILE)
        if not storage.write_atomic(uri, json.dumps(body, indent=1).encode(), expected=self.state):
            raise IncompleteError(
                f"{uri}: another review writes to this folder; run again after it"
            )
        self.state = storage.state(uri)

    def list_masks(self) -> set[str]:
        """Return the names of all masks in the folder."""
        uri = storage.join(self.uri, MASKS)
        return {file.name for file in storage.list_files(uri)} if storage.exists(uri) else set()

    def read_mask(self, name: str) -> StoredMask:
        """Return a mask; the state is older than the bytes."""
        uri = storage.join(self.uri, MASKS, name)
        with contextlib.suppress(FileMissingError):
            if state := storage.state(uri):
                data = storage.read(uri)
                return StoredMask(state, data, _sha256(data) != self.noted.get(name))
        return StoredMask()

    def write_image(self, made: ImageFiles) -> None:
        """Write an image and its outline."""
        outline = f"{made.name.rsplit('.', 1)[0]}.png"
        for folder, name, data in (
            (TRAIN, made.name, made.image),
            (OUTLINES, outline, made.outline),
        ):
            storage.write_atomic(storage.join(self.uri, folder, name), data, replace=True)

    def write_masks(self, masks: Sequence[tuple[str, bytes, StoredMask]]) -> set[str]:
        """Write masks and note them; return the names of those of a person, which stay.

        Args:
            masks: name, bytes, and the mask of this name that `read_mask` returned.
        """
        kept, new = set(), []
        for name, data, stored in masks:
            if stored.data == data or not stored.state:
                self.noted[name] = _sha256(data)
                new += [(name, data)] * (not stored.state)
            elif not stored.changed and self._write_mask(name, data, stored.state):
                self.noted[name] = _sha256(data)
            else:
                kept.add(name)
        self.save_notes()
        return kept | {name for name, data in new if not self._write_mask(name, data, "")}

    def _write_mask(self, name: str, mask: bytes, expected: str) -> bool:
        return storage.write_atomic(storage.join(self.uri, MASKS, name), mask, expected=expected)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
