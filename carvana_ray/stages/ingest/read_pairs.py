"""First map of training: listed images and masks in, both on the network's grid out."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images, storage
from carvana_ray.data.pairs import is_elsewhere, uri_of
from carvana_ray.data.quarantine import UNREACHABLE
from carvana_ray.errors import BadImageError
from carvana_ray.images.decode import load_upright_gray
from carvana_ray.images.validate import (
    MAX_BYTES,
    exif_orientation,
    open_image,
    require_crc,
    upright_size,
)
from carvana_ray.stages.ingest.blocks import Columns, single_row
from carvana_ray.stages.ingest.read_images import (
    UNKNOWN,
    crc_or_none,
    file_columns,
    listed_files,
    lower_priority,
    require_readable,
    require_size,
)
from carvana_ray.storage import FileInfo

ALL_GROUND, ALL_CAR = "all ground", "all car"
INVERTED = "car in all four corners (inverted?)"


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """How to read the pairs of a training run."""

    image_dir: str  # URI
    mask_dir: str  # URI; the name of a file in another folder is its URI
    downscale: int  # see `images.load_gray`
    size: tuple[int, int]  # (H, W) that every upright image and mask must have
    low_priority: bool = False  # leave the CPUs to the other processes of Ray


def pairs_row(
    pairs: Sequence[tuple[FileInfo, FileInfo]], crcs: Mapping[str, int]
) -> dict[str, Any]:
    """Return the input row of `read_pairs` for one block of (image, mask) files, as listed."""
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    return {
        **file_columns(images, "image_"),
        **file_columns(masks, "mask_"),
        "image_crcs": [crcs.get(image.name, UNKNOWN) for image in images],
        "mask_crcs": [crcs.get(mask.name, UNKNOWN) for mask in masks],
    }


def read_pairs(batch: Columns, options: PairOptions) -> Columns:
    """Map a row of `pairs_row` to its upright images and soft masks on the network's grid.

    A bad file does not stop the block, so that one run finds all bad files. After a file that
    cannot be reached no other file of the block is tried: training cannot start without it, and
    each try might take minutes.

    Returns:
        ``image`` uint8 [n, h, w], ``soft_mask`` uint8 [n, h, w], ``error`` str [n]: empty, or the
        name of the file and the reason, which begins with `UNREACHABLE` if storage failed; and
        ``note`` str [n]: empty, or why the mask is unusual.
    """
    if options.low_priority:
        lower_priority()
    row = single_row(batch)
    pairs = list(zip(listed_files(row, "image_"), listed_files(row, "mask_"), strict=True))
    shape = (len(pairs), *images.grid_size(*options.size, options.downscale))
    image, soft_mask = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    errors, notes = [""] * len(pairs), [""] * len(pairs)
    folders = options.image_dir, options.mask_dir
    uris = [uri_of(f, file.name) for p in pairs for f, file in zip(folders, p, strict=True)]
    entries = list(itertools.chain.from_iterable(pairs))
    files = storage.read_many(uris, MAX_BYTES, expected=entries)
    for index, pair in enumerate(pairs):
        image_file, mask_file = next(files), next(files)
        name = pair[0].name  # in the message of an error
        try:
            opened = _open_image(image_file, row["image_crcs"][index], options)
            turn, stored = exif_orientation(opened), (opened.height, opened.width)
            image[index] = load_upright_gray(opened, options.downscale, turn)
            name = pair[1].name
            mask = _load_mask(mask_file, row["mask_crcs"][index])
            if is_elsewhere(name):  # a corrected mask, whose pixels are as stored
                require_size(mask.shape, stored)
                mask = images.to_upright(mask, turn)
            require_upright(mask.shape, options.size, stored, turn)
            soft_mask[index] = images.shrink_mask(mask, options.downscale)
            notes[index] = note_of(mask)
        except BadImageError as error:
            errors[index] = f"{name}: {error}"
        except OSError as error:
            errors[index] = f"{name}: {UNREACHABLE}: {error.strerror or error}"
            break
    return {
        "image": image,
        "soft_mask": soft_mask,
        "error": np.array(errors),
        "note": np.array(notes),
    }


def note_of(mask: NDArray[np.bool_]) -> str:
    """Return why a mask is unusual: `ALL_GROUND`, `ALL_CAR`, `INVERTED`, or ""."""
    if not mask.any():
        return ALL_GROUND
    if mask[0, 0] and mask[0, -1] and mask[-1, 0] and mask[-1, -1]:
        return ALL_CAR if mask.all() else INVERTED
    return ""


def require_upright(
    mask: tuple[int, ...], image: tuple[int, int], stored: tuple[int, int], orientation: int
) -> None:
    """Raise `BadImageError` if a mask does not fit its image as viewers show it.

    A mask that fits both ways (orientations 2 to 4, and squares) counts as upright: the tools that
    people draw masks with show the image upright.

    Args:
        mask: (H, W) of the mask.
        image, stored: (H, W) of the image, upright and as stored.
        orientation: of the image's EXIF block.
    """
    if mask == stored != image:
        raise BadImageError(
            f"orientation: the mask fits the stored pixels of the image ({stored[0]} x "
            f"{stored[1]}), which its EXIF orientation {orientation} turns to {image[0]} x "
            f"{image[1]} (height x width); turn the mask, or remove the orientation"
        )
    require_size(mask, image)


def _open_image(answer: bytes | Exception, crc: int, options: PairOptions) -> Image.Image:
    data = require_readable(answer)
    require_crc(data, crc_or_none(crc))
    image = open_image(data)
    require_size(upright_size(image), options.size)
    return image


def _load_mask(answer: bytes | Exception, crc: int) -> NDArray[np.bool_]:
    data = require_readable(answer)
    require_crc(data, crc_or_none(crc))
    return images.load_mask(data)
