"""Bytes to gray levels, colour and masks."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.errors import BadImageError
from carvana_ray.images.resize import DOWNSCALES, grid_size
from carvana_ray.images.validate import MASK_FORMATS, decode_errors_as, open_image

_MEAN_OF_RGB = (1 / 3, 1 / 3, 1 / 3, 0)


def load_gray(data: bytes, downscale: int = 4) -> NDArray[np.uint8]:
    """Return the mean of red, green and blue over blocks of downscale x downscale pixels.

    JPEG is decoded straight to the small size: the decoder leaves out the high frequencies of each
    8 x 8 block, which is the block mean to within a gray level on average, and four times less work
    than decoding everything. Other formats are decoded in full and averaged.

    Args:
        data: a JPEG (or PNG, WebP) of any size [H, W].
        downscale: 1, 2, 4 or 8.

    Returns:
        uint8 [h, w], ``h = ceil(H / downscale)``: 1280 x 1918 becomes 320 x 480 at 4, 160 x 240 at
        8.

    Raises:
        BadPicture: ``truncated``, and see `formats.open_picture`.
        ValueError: another downscale.
    """
    return to_gray(open_image(data), downscale)


def to_gray(image: Image.Image, downscale: int = 4) -> NDArray[np.uint8]:
    """Return `load_gray` of a picture that `formats.open_picture` has opened, once."""
    if downscale not in DOWNSCALES:
        raise ValueError(f"downscale {downscale}: must be one of {DOWNSCALES}")
    height, width = grid_size(image.height, image.width, downscale)
    # Floor, not ceiling: the decoder takes the smallest scale that is no smaller than asked, and
    # asking for (480, 320) of 1918 x 1280 gives half scale in silence.
    if min(image.size) >= downscale:
        image.draft(None, (image.width // downscale, image.height // downscale))
    with decode_errors_as("truncated"):
        image.load()
        if image.mode != "L":
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            image = rgb.convert("L", _MEAN_OF_RGB)
    if image.size != (width, height):
        image = image.reduce(downscale)
    return np.asarray(image)


def load_rgb(data: bytes) -> Image.Image:
    """Return a picture in full size and colour, mode RGB, as it is stored (see `formats`).

    Raises:
        BadPicture: ``truncated``, and see `formats.open_picture`.
    """
    image = open_image(data)
    with decode_errors_as("truncated"):
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def load_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask of a GIF or PNG of two values, black and white: bool [H, W].

    Raises:
        BadPicture: ``truncated``, ``mask-values`` (a gray level between black and white, which no
            threshold can guess), and see `formats.open_picture`.
    """
    image = open_image(data, MASK_FORMATS)
    with decode_errors_as("truncated"):
        image.load()
    values = image if image.mode in ("L", "P") else image.convert("L")
    pixels = np.asarray(values)
    levels = _levels(values)[: int(pixels.max()) + 1]
    if ((levels > 0) & (levels < 255)).any():  # a count takes ten times as long as a maximum
        used = np.array(values.histogram())[: len(levels)]
        between = int(used[(levels > 0) & (levels < 255)].sum())
        if between:
            raise BadImageError(
                f"mask-values: {between} pixels are neither 0 nor 255, a mask has two values"
            )
    white = np.flatnonzero(levels == 255)
    if len(white) == 1:  # as in every file of Kaggle; a table for each pixel takes three times that
        return pixels == np.uint8(white[0])
    return (levels == 255)[pixels]


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the gray level of each value 0..255 of an image: through a palette, if it has one.

    A palette may well have black at 1. To look up 256 colours instead of all pixels saves 5 ms of
    13 for a GIF of 1280 x 1918.
    """
    every = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if image.mode == "P":
        every = every.copy()
        every.putpalette(image.getpalette("RGB") or [], "RGB")
        every = every.convert("L")
    return np.asarray(every)[0]
