"""Masks that a person has corrected, and the images that they belong to.

    FOLDER/train/                images                 as `review` writes them, and as training
    FOLDER/train_masks/          their masks            data lies
    FOLDER/_review.json          SHA-256 of the masks as `review` wrote them

A mask that is still as `review` wrote it is no correction. A folder without ``train_masks/`` holds
masks alone.

The version of a corrected image names its mask: ``1700000000 corrected 0123456789abcdef``. So what
is made of the image has another version whenever its correction changes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from carvana_ray.storage import FileInfo

REVIEW_FILE = "_review.json"
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


def stored_file(image: FileInfo) -> FileInfo:
    """Return an image as it was listed, without the version of its correction."""
    return replace(image, version=image.version.partition(_MARK)[0])


def correction_of(image: FileInfo) -> str:
    """Return the digest of an image's correction, or "" if it has none."""
    return image.version.partition(_MARK)[2]
