"""Random changes of a training image together with its mask."""

import numpy as np
from numpy.typing import NDArray


def coin(rng: np.random.Generator) -> bool:
    """Return True with probability 1/2."""
    return bool(rng.random() < 0.5)


def sample_affine(
    rng: np.random.Generator, flip: bool, max_shift: float, max_log_scale: float
) -> NDArray[np.float32]:
    """Return a random shift, scale and, with probability 1/2, mirroring for `warp.apply_affine`.

    Args:
        flip: allow mirroring.
        max_shift: largest shift to each side, as a fraction of height and width.
        max_log_scale: largest absolute value of the natural logarithm of the size.

    Returns:
        float32 [2, 3]: the matrix from (x, y, 1) in the new image to (x, y) in the old one, both
        from -1 to 1 across the image, as `torch.nn.functional.affine_grid` takes it.
    """
    mirror = -1.0 if flip and coin(rng) else 1.0
    size = np.exp(rng.uniform(-max_log_scale, max_log_scale))
    x, y = rng.uniform(-2 * max_shift, 2 * max_shift, 2)
    return np.array([[mirror * size, 0, x], [0, size, y]], dtype=np.float32)
