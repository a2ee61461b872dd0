"""What changes a training picture and its mask together, at random."""

import numpy as np
from numpy.typing import NDArray


def flip(image: NDArray, mask: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return image and mask [..., w], both mirrored left to right in one of two cases.

    A car on a turntable, mirrored, is a car on a turntable: view 5 becomes view 13.
    """
    if rng.random() < 0.5:
        return image[..., ::-1], mask[..., ::-1]
    return image, mask
