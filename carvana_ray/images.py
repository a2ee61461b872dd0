"""Bytes to gray levels and masks, and between full size and the network's grid.

One shrink and its inverse, one standardization, for training and prediction alike. H, W is a
picture's full size, h, w the network's grid: ``h = ceil(H / downscale)``. Knows no files, no torch.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.errors import BadPicture
from carvana_ray.formats import MASK_FORMATS, damage_is, open_picture

DOWNSCALES = (1, 2, 4, 8)  # what a JPEG decoder can leave out of its 8 x 8 cosine blocks
_MEAN_OF_RGB = (1 / 3, 1 / 3, 1 / 3, 0)


def grid(height: int, width: int, downscale: int) -> tuple[int, int]:
    """Return the network's (h, w) of a picture of (H, W): whole blocks, the last ones padded."""
    return math.ceil(height / downscale), math.ceil(width / downscale)


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
    return gray_of(open_picture(data), downscale)


def gray_of(image: Image.Image, downscale: int = 4) -> NDArray[np.uint8]:
    """Return `load_gray` of a picture that `formats.open_picture` has opened, once."""
    if downscale not in DOWNSCALES:
        raise ValueError(f"downscale {downscale}: must be one of {DOWNSCALES}")
    height, width = grid(image.height, image.width, downscale)
    # Floor, not ceiling: the decoder takes the smallest scale that is no smaller than asked, and
    # asking for (480, 320) of 1918 x 1280 gives half scale in silence.
    if min(image.size) >= downscale:
        image.draft(None, (image.width // downscale, image.height // downscale))
    with damage_is("truncated"):
        image.load()
        if image.mode != "L":
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            image = rgb.convert("L", _MEAN_OF_RGB)
    if image.size != (width, height):
        image = image.reduce(downscale)
    return np.asarray(image)


def load_colour(data: bytes) -> Image.Image:
    """Return a picture in full size and colour, mode RGB, as it is stored (see `formats`).

    Raises:
        BadPicture: ``truncated``, and see `formats.open_picture`.
    """
    image = open_picture(data)
    with damage_is("truncated"):
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def load_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask of a GIF or PNG of two values, black and white: bool [H, W].

    Raises:
        BadPicture: ``truncated``, ``mask-values`` (a gray level between black and white, which no
            threshold can guess), and see `formats.open_picture`.
    """
    image = open_picture(data, MASK_FORMATS)
    with damage_is("truncated"):
        image.load()
    values = image if image.mode in ("L", "P") else image.convert("L")
    pixels = np.asarray(values)
    levels = _levels(values)[: int(pixels.max()) + 1]
    if ((levels > 0) & (levels < 255)).any():  # a count takes ten times as long as a maximum
        used = np.array(values.histogram())[: len(levels)]
        between = int(used[(levels > 0) & (levels < 255)].sum())
        if between:
            raise BadPicture(
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


def shrink_mask(mask: NDArray, downscale: int = 4) -> NDArray[np.uint8]:
    """Return the share of car in each block of downscale x downscale pixels, times 255.

    Args:
        mask: bool [H, W]. The right and bottom are padded to whole blocks by repeating the last
            column and row.
        downscale: 1 or more.

    Returns:
        uint8 [h, w], rounded to the nearest.
    """
    height, width = mask.shape
    h, w = grid(height, width, downscale)
    levels = np.empty((h * downscale, w * downscale), dtype=np.uint8)
    np.multiply(np.asarray(mask, dtype=np.bool_), np.uint8(255), out=levels[:height, :width])
    levels[:height, width:] = levels[:height, width - 1 : width]
    levels[height:] = levels[height - 1]
    return np.asarray(Image.fromarray(levels).reduce(downscale))


def factor(height: int, width: int, h: int, w: int) -> int:
    """Return the downscale that makes a grid of (h, w) of a picture of (H, W), `DOWNSCALES` first.

    Raises:
        ValueError: none does.
    """
    for downscale in (*DOWNSCALES, -(-height // h)):
        if grid(height, width, downscale) == (h, w):
            return downscale
    raise ValueError(f"a grid of {h} x {w} is no whole fraction of {height} x {width}")


def enlarge(share: NDArray, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask whose blocks hold `share` of car: the inverse of `shrink_mask`.

    Bilinear by the whole factor (sample points at block centres), cut to height x width, and true
    above a half. Weights are odd sixteenths and the like, so float32 adds up a uint8 share exactly
    and every implementation of this arithmetic gives the same mask.

    Args:
        share: uint8 (0..255) or float (0..1), [h, w] or [B, h, w].
        height, width: H, W of the picture.

    Returns:
        bool [H, W] or [B, H, W].

    Raises:
        ValueError: [h, w] is no whole fraction of [H, W].
    """
    share = np.asarray(share)
    if share.ndim == 3:
        masks = np.empty((len(share), height, width), dtype=np.bool_)
        for mask, one in zip(masks, share, strict=True):
            mask[:] = enlarge(one, height, width)
        return masks
    half = 127.5 if share.dtype == np.uint8 else 0.5
    return smooth(share, height, width) > half


def smooth(share: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """Return the share of car at each pixel, before `enlarge` compares it with a half.

    Args:
        share: uint8 (0..255) or float (0..1), [h, w].
        height, width: H, W of the picture.

    Returns:
        float32 [H, W], in the unit of `share`.

    Raises:
        ValueError: [h, w] is no whole fraction of [H, W].
    """
    h, w = share.shape
    times = factor(height, width, h, w)
    full = Image.fromarray(share.astype(np.float32)).resize(
        (w * times, h * times), Image.Resampling.BILINEAR
    )
    return np.asarray(full)[:height, :width]


def standardize(gray: Any) -> Any:
    """Return each picture at zero mean and unit variance, by its own mean and standard deviation.

    A picture's mask must not depend on its neighbours in the batch, so nothing is shared. One level
    squared is added to the variance: a blank picture becomes zeros.

    Args:
        gray: numpy array or torch tensor [..., h, w], gray levels 0..255. Only what the two have in
            common is used, so that training and prediction share this very function.

    Returns:
        The same kind [..., h, w], float32 for uint8 and float32 input.
    """
    levels = gray * np.float32(1)  # an array of our own, 39 MB for 64 pictures at a quarter
    levels -= levels.mean(axis=(-2, -1), keepdims=True)
    variance = (levels * levels).mean(axis=(-2, -1), keepdims=True)
    levels /= (variance + np.float32(1)) ** 0.5
    return levels
