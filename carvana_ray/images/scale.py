"""The grid on which the network sees an image, at the scale of the images it was trained on.

A network knows cars of one size in pixels. So an image with far more or fewer pixels than those of
its training is resized to as many, with its own aspect ratio, whatever camera took it.
"""

import logging
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.images.decode import decode_gray, to_gray
from carvana_ray.images.resize import DOWNSCALES, grid_size, whole_factor
from carvana_ray.images.turns import to_upright

log = logging.getLogger(__name__)

Size = tuple[int, int]  # height, width

# In height and width; within it an image keeps its size. Real cars, two small models: Dice falls by
# 0.001 to 0.009 at 1.1 times the training size, by 0.004 to 0.034 at 1.25, by 0.05 to 0.13 at 2 and
# by 0.15 to 0.47 at a quarter. Scaled it stays within 0.002 from a quarter to three times.
MAX_RATIO = 1.2


def training_scale(height: int, width: int, trained: Size) -> float:
    """Return the factor that gives an image as many pixels as the training images have.

    It is 1 for images whose size is within `MAX_RATIO` of theirs. Areas are compared: a portrait
    or a square of a car has about the scale of a landscape with as many pixels.
    """
    ratio = math.sqrt(trained[0] * trained[1] / (height * width))
    return 1.0 if 1 / MAX_RATIO <= ratio <= MAX_RATIO else ratio


def network_grid(height: int, width: int, downscale: int, trained: Size) -> Size:
    """Return the network's (h, w) for an image of (H, W).

    Args:
        height, width: of the image.
        downscale: of the model.
        trained: (H, W) of the model's training images.
    """
    scale = training_scale(height, width, trained)
    if scale == 1:
        return grid_size(height, width, downscale)
    h, w = (max(1, round(length * scale / downscale)) for length in (height, width))
    return h, w


class ScaleCount:
    """Counts the images that are scaled for the network.

    Args:
        trained: (H, W) of the model's training images.
    """

    def __init__(self, trained: Size) -> None:
        self._trained = trained
        self._found: dict[str, list[float]] = {}  # number, smallest and largest ratio, by word

    def add(self, pixels: int) -> None:
        """Note an image by its number of pixels."""
        scale = training_scale(pixels, 1, self._trained)
        if scale != 1:
            ratio = max(scale, 1 / scale)
            word = "smaller" if scale > 1 else "larger"
            count, least, most = self._found.get(word, (0, ratio, ratio))
            self._found[word] = [count + 1, min(least, ratio), max(most, ratio)]

    def __str__(self) -> str:
        """Return the counts in words, or an empty text."""
        parts = []
        for word, (count, least, most) in sorted(self._found.items()):
            ratio, top = (f"{r:.2g}" if r < 10 else f"{r:.0f}" for r in (least, most))
            ratio = ratio if ratio == top else f"{ratio} to {top}"
            images = "1 image is" if count == 1 else f"{count:.0f} images are"
            parts.append(f"{images} {ratio} times {word}")
        return " and ".join(parts)

    def log(self) -> None:
        """Log the counts in one line if any image is scaled."""
        if self._found:
            log.info("%s than the training images: scaled for the network", self)


def load_network_gray(
    image: Image.Image, downscale: int, trained: Size, orientation: int = 1
) -> NDArray[np.uint8]:
    """Return what the network sees of an image: gray levels on its grid, upright.

    Args:
        image: from `validate.open_image`; nothing decoded it yet.
        downscale, trained: see `network_grid`.
        orientation: of EXIF. `turns.to_stored` turns the soft mask back.

    Returns:
        uint8 [h, w] of `network_grid`; axes are exchanged if the orientation does so.

    Raises:
        BadImageError: see `to_gray`.
    """
    grid = network_grid(image.height, image.width, downscale, trained)
    if grid == grid_size(image.height, image.width, downscale):
        gray = to_gray(image, downscale)
    else:
        gray = _resized_gray(image, *grid)
    return to_upright(gray, orientation)


def _resized_gray(image: Image.Image, h: int, w: int) -> NDArray[np.uint8]:
    """Return the gray levels of an image on a grid of any (h, w): `images.upsample` inverts it."""
    height, width = image.height, image.width
    if factor := whole_factor(height, width, h, w):  # blocks, as `upsample` takes them
        first = max(part for part in DOWNSCALES if factor % part == 0)
        return np.asarray(Image.fromarray(to_gray(image, first)).reduce(factor // first))
    gray = decode_gray(image, (w, h))
    # A decoder that shrinks rounds up; the last pixels then lie partly outside.
    shrunk = max(1, round(width / gray.width))
    box = (0, 0, min(width / shrunk, gray.width), min(height / shrunk, gray.height))
    kind = Image.Resampling.BOX if w <= box[2] else Image.Resampling.BICUBIC
    return np.asarray(gray.resize((w, h), kind, box))
