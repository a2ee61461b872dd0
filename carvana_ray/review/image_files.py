"""What a person gets of one image to correct its mask: bytes in, bytes out.

Masks lie as the pixels of the image are stored, as in a submission. An image that its EXIF block
turns is shown turned, so that its mask would not fit onto it. It is therefore written as NAME.png:
the stored pixels, without EXIF. Corrections find their image by its name without suffix, so
NAME_mask.png is the mask of NAME.png in the folder, and of NAME.jpg where it was predicted.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import rle
from carvana_ray.errors import BadImageError
from carvana_ray.images.decode import load_colors
from carvana_ray.images.masks import load_mask
from carvana_ray.images.outline import COLORS, draw_outline
from carvana_ray.images.validate import exif_orientation, open_image
from carvana_ray.review import coco
from carvana_ray.review.listed import ListedImage
from carvana_ray.review.shape import measure

Mask = NDArray[np.bool_]

ROUNDED = 0.0006  # by which an outline of three digits may differ


@dataclass(frozen=True)
class ImageFiles:
    """The files of an image.

    Attributes:
        name: file name of the image.
        image, mask, outline: bytes of the files.
        entry: the image and its annotation for COCO.
        problem: why the corrected mask cannot be used, or "".
    """

    name: str
    image: bytes
    mask: bytes
    outline: bytes
    entry: coco.Entry
    problem: str = ""


def make_files(
    listed: ListedImage, data: bytes, runs: str, corrected: bytes | None = None
) -> ImageFiles:
    """Return the files of an image.

    Args:
        listed: the image.
        data: bytes of its file.
        runs: run-length text of its predicted mask.
        corrected: bytes of the mask that a person has changed. Outline and COCO then show it, and
            the mask among the files is still the predicted one.

    Raises:
        BadImageError: the image is damaged, or has another size than when it was predicted.
    """
    opened = open_image(data)
    height, width = opened.height, opened.width
    shown = mask = _decode(listed, runs, height, width)
    problem = ""
    if corrected is not None:
        try:
            shown = _load_corrected(corrected, height, width)
        except BadImageError as error:
            problem = str(error)
    turned = exif_orientation(opened) != 1
    name = f"{listed.name.rsplit('.', 1)[0]}.png" if turned else listed.name
    return ImageFiles(
        name,
        _stored_pixels(data) if turned else data,
        _to_png(Image.fromarray(mask.view(np.uint8) * np.uint8(255))),
        _to_png(_outline(shown)),
        coco.entry(listed.number, name, shown),
        problem,
    )


def _decode(listed: ListedImage, runs: str, height: int, width: int) -> Mask:
    """Return the predicted mask: bool [H, W]."""
    try:
        same = abs(measure(runs, height, width).perimeter_ratio - listed.outline) < ROUNDED
    except ValueError:  # runs beyond the last pixel
        same = False
    if not same:
        raise BadImageError(
            f"wrong-size: {width} x {height} pixels do not fit its mask; predict it again"
        )
    return rle.decode(runs, height, width)


def _load_corrected(data: bytes, height: int, width: int) -> Mask:
    mask = load_mask(data)
    if mask.shape != (height, width):
        raise BadImageError(
            f"wrong-size: {mask.shape[1]} x {mask.shape[0]} pixels, the image has "
            f"{width} x {height}"
        )
    return mask


def _stored_pixels(data: bytes) -> bytes:
    """Return an image as PNG, as it is stored, with its color profile and without EXIF."""
    colors = load_colors(data)
    image = colors.rgb
    if colors.alpha:
        image = Image.merge("RGBA", [*image.split(), colors.alpha])
    return _to_png(image, icc_profile=colors.profile)


def _outline(mask: Mask) -> Image.Image:
    """Return the outline of a mask on transparent ground, mode RGBA."""
    image = Image.fromarray(draw_outline(mask))
    image.putpalette([value for color in COLORS for value in color], "RGBA")
    return image.convert("RGBA")


def _to_png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()
