"""Alpha of a cut-out: uint8 [H, W], 255 for the car, 0 for the background. Knows no colors.

Alpha lies in between at the mask's edge only. What the network half believes far from the edge, for
example letters on the wall, does not shine through.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from carvana_ray import images

STEPS = 8  # from the edge until alpha is 0 or 255
FINE_BELOW = 640  # pixels of the shorter side: a step is one pixel below it, else two


def soft_alpha(soft_mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return ``clip(ceil(2 S - 128), 0, 255)`` of the upsampled soft mask S, without a band.

    Twice the contrast, because an upsampled edge is two blocks wide. Values of S below a quarter
    become transparent. Exactly one half (127.5) rounds down to 127, so that alpha is 128 or more
    exactly where `images.enlarge` says car.

    Args:
        soft_mask: uint8 [h, w], on a grid that divides the image into whole blocks.
        height, width: size of the image and of the result, uint8 [H, W].
    """
    doubled = 2 * images.upsample(soft_mask, height, width)  # exact in float32
    doubled -= 128  # in place: an image of 64 megapixels has 256 MB of these numbers
    return np.ceil(doubled, out=doubled).clip(0, 255, out=doubled).astype(np.uint8)


def hard_alpha(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the alpha of a mask: uint8 [H, W], 255 where it is true, else 0."""
    return mask.view(np.uint8) * np.uint8(255)


def smooth_alpha(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the alpha of a mask with edges of one pixel: the mean over 3 x 3 pixels.

    Pixels of the border count as if the image went on.

    Returns:
        uint8 [H, W]. It is 128 or more exactly where the mask is true.
    """
    alpha = hard_alpha(mask)
    mean = np.asarray(Image.fromarray(alpha).filter(ImageFilter.BoxBlur(1)))
    return np.where(mask, np.maximum(mean, 128), np.minimum(mean, 127))


def limit_alpha(alpha: NDArray[np.uint8], own: Image.Image | None, soft: bool) -> NDArray[np.uint8]:
    """Return alpha, uint8 [H, W], where the image itself has at least as much: nothing reappears.

    Args:
        alpha: of the cut-out.
        own: alpha of the image, mode L; None if all of it is opaque.
        soft: False: the result has the values 0 and 255 alone, and `own` counts from 128 on.
    """
    if own is None:
        return alpha
    limit = np.asarray(own)
    return np.minimum(alpha, limit if soft else hard_alpha(limit >= 128))


def limit_to_band(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Limit soft alpha to a band along the edge of its mask, where alpha is 128 or more.

    The limit leaves alpha free at the edge and moves evenly to 0 outside and to 255 inside within
    `STEPS` steps: about 16 pixels, 8 in small images, never more than 23. An edge of a sure network
    is steeper than the limit on all grids of up to 16 pixels, so it stays as it is. The mask stays,
    with its holes and thin parts. Steps are counted on cells of one or two pixels a side.

    Args:
        alpha: uint8 [H, W], as `soft_alpha` returns it.

    Returns:
        uint8 [H, W]. Alpha is 128 or more exactly where it was.
    """
    height, width = alpha.shape
    mask = alpha >= 128
    cells, side = _cells(mask)
    levels = _closeness(cells > 0) + (127 - _closeness(cells < 255))  # 127 at the edge
    full = Image.fromarray(levels).resize(
        (levels.shape[1] * side, levels.shape[0] * side), Image.Resampling.BILINEAR
    )
    limit = np.asarray(full)[:height, :width]
    return np.where(mask, np.maximum(alpha, limit + np.uint8(1)), np.minimum(alpha, limit))


def clear_around(alpha: NDArray[np.uint8], pieces: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return alpha without some pieces of its mask and their soft edges.

    A pixel outside the mask belongs to the nearest piece; those of equal distance stay.

    Args:
        alpha: uint8 [H, W], as `limit_to_band` returns it.
        pieces: bool [H, W], whole pieces of the mask (alpha of 128 or more).
    """
    (gone, side), (kept, _) = (_cells(mask) for mask in (pieces, (alpha >= 128) & ~pieces))
    near = _closeness(kept > 0)
    stays = (near > 0) & (near >= _closeness(gone > 0))
    height, width = alpha.shape
    stays = stays.repeat(side, 0).repeat(side, 1)[:height, :width]
    return np.where(stays & ~pieces, alpha, np.uint8(0))


def _cells(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], int]:
    """Return the mean of a mask, 0 to 255, on cells of one or two pixels a side; and that side."""
    side = 1 if min(mask.shape) < FINE_BELOW else 2
    return np.asarray(Image.fromarray(hard_alpha(mask)).reduce(side)), side


def _closeness(cells: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return how close each cell is to the true cells, bool [h, w].

    Returns:
        uint8 [h, w]: 127 up to one step from them, evenly less further on, 0 from `STEPS` steps on.
    """
    steps = cells.astype(np.uint8)
    for step in range(1, STEPS):
        cells = _grow(cells, corners=step % 2 == 0)  # octagons, which are nearly circles
        steps += cells
    return (steps * (127 / (STEPS - 1))).clip(0, 127).astype(np.uint8)


def _grow(cells: NDArray[np.bool_], corners: bool) -> NDArray[np.bool_]:
    """Return the true cells and their neighbors in rows and columns, or at the corners too."""
    rows = cells.copy()
    rows[:, 1:] |= cells[:, :-1]
    rows[:, :-1] |= cells[:, 1:]
    source = rows if corners else cells
    grown = rows.copy()
    grown[1:] |= source[:-1]
    grown[:-1] |= source[1:]
    return grown
