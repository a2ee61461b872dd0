"""Bytes of an image file to gray levels or colors. Masks are in `masks`."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.images.resize import DOWNSCALES, grid_size
from carvana_ray.images.validate import decode_errors_as, open_image

_MEAN_OF_RGB = (1 / 3, 1 / 3, 1 / 3, 0)


def load_gray(data: bytes, downscale: int = 4) -> NDArray[np.uint8]:
    """Decode an image to gray levels on the network's grid.

    A gray level is the mean of red, green and blue over a block of downscale x downscale pixels. A
    JPEG is decoded directly at the small size, without the high frequencies of each 8 x 8 block: a
    quarter of the work, and within a gray level of the block mean on average. Other formats are
    decoded in full. At the border only pixels inside the image (JPEG: and the encoder's padding)
    count.

    Args:
        data: a JPEG, PNG or WebP file of any size [H, W] with 8 bits a channel. EXIF orientation is
            ignored: the pixels stay as they are stored.
        downscale: 1, 2, 4 or 8.

    Returns:
        uint8 [h, w], 0 (black) to 255 (white), with ``h = ceil(H / downscale)`` and
        ``w = ceil(W / downscale)``: 1280 x 1918 becomes 320 x 480 at 4 and 160 x 240 at 8.

    Raises:
        BadImageError: ``truncated``, or see `validate.open_image`.
        ValueError: another downscale.
    """
    return to_gray(open_image(data), downscale)


def to_gray(image: Image.Image, downscale: int = 4) -> NDArray[np.uint8]:
    """Return `load_gray` of an image that `validate.open_image` opened and nothing decoded yet."""
    if downscale not in DOWNSCALES:
        raise ValueError(f"downscale {downscale}: must be one of {DOWNSCALES}")
    height, width = grid_size(image.height, image.width, downscale)
    # Rounded down, unlike the grid: the decoder takes the smallest scale that is at least as large
    # as requested, and for (480, 320) of 1918 x 1280 it would silently take half the size.
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
    """Decode an image in full size and color, mode RGB. EXIF orientation is ignored.

    Raises:
        BadImageError: ``truncated``, or see `validate.open_image`.
    """
    image = open_image(data)
    with decode_errors_as("truncated"):
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
