"""The outline of a mask, drawn so that it shows on a car of any color."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# Red, green, blue and opacity: nothing, yellow, black.
COLORS = (0, 0, 0, 0), (255, 214, 0, 255), (0, 0, 0, 255)


def draw_outline(mask: Mask) -> NDArray[np.uint8]:
    """Return the outline of a mask as indices into `COLORS`: uint8 [H, W].

    The outline has three pixels: the last one of the mask and the first one around it are yellow,
    the next one is black.
    """
    near = _dilate(mask)
    index = np.zeros(mask.shape, dtype=np.uint8)
    index[_dilate(near) & ~near] = 2
    index[near & ~mask] = 1
    index[mask & _dilate(~mask)] = 1
    return index


def _dilate(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
