"""Bytes of an image file to gray levels, colors or a mask."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.errors import BadImageError, plural
from carvana_ray.images.resize import DOWNSCALES, grid_size
from carvana_ray.images.validate import MASK_FORMATS, decode_errors_as, open_image

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


def load_mask(data: bytes) -> NDArray[np.bool_]:
    """Decode a mask that has only black and white pixels.

    Args:
        data: a GIF or PNG file of any size [H, W]; a palette is applied.

    Returns:
        bool [H, W]: True where the pixel is white (255), which is car.

    Raises:
        BadImageError: ``truncated``; ``mask-values`` (gray levels between black and white, which no
            threshold can resolve); or see `validate.open_image`.
    """
    image = open_image(data, MASK_FORMATS)
    with decode_errors_as("truncated"):
        image.load()
    values = image if image.mode in ("L", "P") else image.convert("L")
    pixels = np.asarray(values)
    levels = _levels(values)[: int(pixels.max()) + 1]
    gray = (levels > 0) & (levels < 255)
    if gray.any():  # a palette may hold colors that no pixel has; counting takes 10 times as long
        count = int(np.array(values.histogram())[: len(levels)][gray].sum())
        if count:
            raise BadImageError(
                f"mask-values: {plural(count, 'pixel')} with a gray level other than 0 and 255"
            )
    white = np.flatnonzero(levels == 255)
    if len(white) == 1:  # as in all files of Kaggle, and three times as fast as a lookup
        return pixels == np.uint8(white[0])
    return (levels == 255)[pixels]


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the gray level of each pixel value 0..255 of an image of mode L or P.

    Looking up 256 palette colors instead of all pixels saves 5 of 13 ms for a GIF of 1280 x 1918.
    """
    values = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if image.mode == "P":
        values = values.copy()
        values.putpalette(image.getpalette("RGB") or [], "RGB")
        values = values.convert("L")
    return np.asarray(values)[0]
