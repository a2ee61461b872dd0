"""Between full size and the network's grid, and standardization. Uses only numpy and Pillow."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DOWNSCALES = (1, 2, 4, 8)  # the sizes that a JPEG decoder makes of its 8 x 8 cosine blocks


def grid_size(height: int, width: int, downscale: int) -> tuple[int, int]:
    """Return the network's (h, w) for an image of (H, W), rounded up to whole blocks."""
    return math.ceil(height / downscale), math.ceil(width / downscale)


def infer_downscale(height: int, width: int, h: int, w: int) -> int:
    """Return the downscale that turns (H, W) into a grid of (h, w).

    If several do, as for a tiny image, the first of `DOWNSCALES` is returned.

    Raises:
        ValueError: no downscale does.
    """
    if factor := whole_factor(height, width, h, w):
        return factor
    raise ValueError(f"a grid of {h} x {w} is not a whole fraction of {height} x {width}")


def whole_factor(height: int, width: int, h: int, w: int) -> int | None:
    """Return `infer_downscale`, or None if no downscale turns (H, W) into a grid of (h, w)."""
    for downscale in (*DOWNSCALES, -(-height // h)):
        if grid_size(height, width, downscale) == (h, w):
            return downscale
    return None


def _same_aspect(height: int, width: int, h: int, w: int) -> bool:
    """Return whether one scale turns (H, W) into (h, w), each to within a point of the grid."""
    return max((h - 1) / height, (w - 1) / width) <= min((h + 1) / height, (w + 1) / width)


def shrink_mask(mask: NDArray, downscale: int = 4) -> NDArray[np.uint8]:
    """Return the soft mask of a mask: the mean of each block, from 0 (background) to 255 (car).

    Args:
        mask: bool [H, W], True for car. The last row and column are repeated to fill whole blocks.
        downscale: side of a block in pixels, 1 or more.

    Returns:
        uint8 [h, w] with ``h = ceil(H / downscale)`` and ``w = ceil(W / downscale)``, rounded to
        the nearest level.
    """
    height, width = mask.shape
    h, w = grid_size(height, width, downscale)
    levels = np.empty((h * downscale, w * downscale), dtype=np.uint8)
    np.multiply(np.asarray(mask, dtype=np.bool_), np.uint8(255), out=levels[:height, :width])
    levels[:height, width:] = levels[:height, width - 1 : width]
    levels[height:] = levels[height - 1]
    return np.asarray(Image.fromarray(levels).reduce(downscale))


def enlarge(share: NDArray, height: int, width: int) -> NDArray[np.bool_]:
    """Return the full-size mask of a soft mask: the inverse of `shrink_mask`.

    The mask is True where `upsample` is above a half: 127.5 for uint8, 0.5 for float. A tie is
    background. For `DOWNSCALES` the weights are multiples of 1/256, so float32 sums of uint8 levels
    are exact, and every implementation of this arithmetic gives the same mask.

    Args:
        share: the soft mask: uint8 (0..255) or float (0..1), [h, w], or [B, h, w] for a batch.
        height, width: full size H, W in pixels.

    Returns:
        bool [H, W], or [B, H, W] for a batch. True is car.

    Raises:
        ValueError: the grid has another aspect ratio than the image.
    """
    share = np.asarray(share)
    if share.ndim == 3:
        masks = np.empty((len(share), height, width), dtype=np.bool_)
        for row, soft_mask in enumerate(share):
            masks[row] = enlarge(soft_mask, height, width)
        return masks
    half = 127.5 if share.dtype == np.uint8 else 0.5
    return upsample(share, height, width) > half


def upsample(soft_mask: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """Return a soft mask at full size, by bilinear interpolation between the centers of blocks.

    Args:
        soft_mask: uint8 or float [h, w]. Of a grid that no downscale gives (`scale.network_grid`)
            a block has the same fraction of the image's height and width.
        height, width: full size H, W in pixels. Whole blocks are cropped to it.

    Returns:
        float32 [H, W], in the range of `soft_mask`.

    Raises:
        ValueError: the grid has another aspect ratio than the image.
    """
    h, w = soft_mask.shape
    factor = whole_factor(height, width, h, w)
    if factor is None and not _same_aspect(height, width, h, w):
        raise ValueError(f"a grid of {h} x {w} does not fit an image of {height} x {width}")
    size = (w * factor, h * factor) if factor else (width, height)
    full = Image.fromarray(soft_mask.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(full)[:height, :width]


def standardize(gray: Any) -> Any:
    """Return images with zero mean and unit variance, each by its own statistics.

    ``(x - mean) / sqrt(variance + 1)`` over the pixels of one image, so that a mask never depends
    on the other images of a batch. The added 1 (gray level squared) turns a blank image into zeros.

    Args:
        gray: numpy array or torch tensor [..., h, w] of gray levels 0..255, unchanged. Training and
            prediction share this function, which uses only what numpy and torch have in common.

    Returns:
        The same type and shape [..., h, w], float32 for uint8 and float32 input.
    """
    levels = gray * np.float32(1)  # a copy, so that the steps below work in place
    levels -= levels.mean(axis=(-2, -1), keepdims=True)
    variance = (levels * levels).mean(axis=(-2, -1), keepdims=True)
    levels /= (variance + np.float32(1)) ** 0.5
    return levels
