"""Between full size and the network grid; standardization. numpy and Pillow alone."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DOWNSCALES = (1, 2, 4, 8)  # what a JPEG decoder can leave out of its 8 x 8 cosine blocks


def grid_size(height: int, width: int, downscale: int) -> tuple[int, int]:
    """Return the network's (h, w) of a picture of (H, W): whole blocks, the last ones padded."""
    return math.ceil(height / downscale), math.ceil(width / downscale)


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
    h, w = grid_size(height, width, downscale)
    levels = np.empty((h * downscale, w * downscale), dtype=np.uint8)
    np.multiply(np.asarray(mask, dtype=np.bool_), np.uint8(255), out=levels[:height, :width])
    levels[:height, width:] = levels[:height, width - 1 : width]
    levels[height:] = levels[height - 1]
    return np.asarray(Image.fromarray(levels).reduce(downscale))


def infer_downscale(height: int, width: int, h: int, w: int) -> int:
    """Return the downscale that makes a grid of (h, w) of a picture of (H, W), `DOWNSCALES` first.

    Raises:
        ValueError: none does.
    """
    for downscale in (*DOWNSCALES, -(-height // h)):
        if grid_size(height, width, downscale) == (h, w):
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
    return upsample(share, height, width) > half


def upsample(share: NDArray, height: int, width: int) -> NDArray[np.float32]:
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
    times = infer_downscale(height, width, h, w)
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
