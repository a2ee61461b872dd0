"""Seeds and types of the drawn car that the tests of the sample share."""

import numpy as np
from numpy.typing import NDArray

SEED = 11
Mask = NDArray[np.bool_]
Pair = tuple[NDArray[np.uint8], Mask]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
