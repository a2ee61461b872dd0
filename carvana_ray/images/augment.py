"""What changes a training picture and its mask together, at random."""

import numpy as np
from numpy.typing import NDArray

# Of the recipe `best`: found on real cars, see docs/recipes.md. A camera and a turntable that stand
# still leave cars at one place and distance; so little is enough, and at five times as much 20
# epochs are too few to learn from.
SHIFT = 0.03  # of height and width, at most
SCALE = 0.08  # of the logarithm of the size, at most


def coin(rng: np.random.Generator) -> bool:
    """Return whether to mirror a picture: one of two cases."""
    return bool(rng.random() < 0.5)


def random_flip(image: NDArray, mask: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return image and mask [..., w], both mirrored left to right in one of two cases.

    A car on a turntable, mirrored, is a car on a turntable: view 5 becomes view 13.
    """
    if coin(rng):
        return image[..., ::-1], mask[..., ::-1]
    return image, mask


def sample_affine(rng: np.random.Generator, flip: bool) -> NDArray[np.float32]:
    """Return how a picture is moved and sized, and in one of two cases mirrored: float32 [2, 3].

    Args:
        rng: of the picture.
        flip: whether it may be mirrored.

    Returns:
        the matrix that leads from a place of the new picture to that of the old one, (x, y, 1) to
        (x, y), each from -1 to 1 over the picture: as `torch.nn.functional.affine_grid` takes it.
    """
    mirrored = -1.0 if flip and coin(rng) else 1.0
    size = np.exp(rng.uniform(-SCALE, SCALE))
    x, y = rng.uniform(-2 * SHIFT, 2 * SHIFT, 2)
    return np.array([[mirrored * size, 0, x], [0, size, y]], dtype=np.float32)
