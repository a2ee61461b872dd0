"""Corrected masks in the first map of prediction: the mask of an image as a person has drawn it."""

import errno
import hashlib
from dataclasses import dataclass

from carvana_ray import images, rle
from carvana_ray.data.corrections import DIGITS
from carvana_ray.errors import (
    BadImageError,
    FileChangedError,
    FileTooLargeError,
    StorageUnavailableError,
)
from carvana_ray.images.turns import turned_size
from carvana_ray.images.validate import MAX_BYTES
from carvana_ray.storage.base import CHANGED

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class CorrectionFile:
    """A corrected mask as a file.

    Attributes:
        uri: of the file.
        digest: start of its SHA-256 when it was listed, see `Corrections`.
        answer: its bytes, or why it cannot be read: an element of `storage.read_many`.
    """

    uri: str
    digest: str
    answer: bytes | Exception

    def run_bounds(self, stored: Size, orientation: int) -> bytes:
        """Return the run bounds of the mask, as `rle.text_from_bounds` takes them.

        Args:
            stored: (H, W) of the image's pixels as stored, which are those of the mask.
            orientation: of the image's EXIF block.

        Raises:
            BadImageError: ``correction``; the mask cannot be used, or has another size.
            OSError: the mask cannot be reached, or has changed since it was listed.
        """
        try:
            mask = images.load_mask(self._listed_bytes())
            _require_stored(mask.shape, stored, orientation)
        except BadImageError as error:
            raise BadImageError(
                f"correction: {self.uri}: {error}; correct the mask again, or remove the file"
            ) from error
        return rle.bounds_from_mask(mask)

    def _listed_bytes(self) -> bytes:
        if isinstance(self.answer, FileTooLargeError):
            raise BadImageError(f"too-large: more than {MAX_BYTES} bytes")
        if isinstance(self.answer, OSError):
            cause = f"correction {self.uri}: {self.answer.strerror or self.answer}"
            raise StorageUnavailableError(self.answer.errno, cause, self.uri)
        # A removed file is a change too: the next run lists the masks again.
        data = b"" if isinstance(self.answer, Exception) else self.answer
        if hashlib.sha256(data).hexdigest()[:DIGITS] != self.digest:
            raise FileChangedError(errno.ESTALE, f"correction {self.uri}: {CHANGED}", self.uri)
        return data


def _require_stored(mask: tuple[int, ...], stored: Size, orientation: int) -> None:
    """Raise `BadImageError` if a mask does not have the (H, W) of its image's stored pixels."""
    if mask == stored:
        return
    size, expected = (f"{height} x {width}" for height, width in (mask, stored))
    if mask == turned_size(*stored, orientation):
        raise BadImageError(
            f"wrong-size: the mask fits the upright image ({size}), but a corrected mask has the "
            f"pixels as stored ({expected}, height x width; EXIF orientation {orientation})"
        )
    raise BadImageError(f"wrong-size: {size} (height x width), expected {expected}")
