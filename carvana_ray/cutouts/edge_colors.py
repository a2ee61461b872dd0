"""Colors of soft edges without those of the background."""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.cutouts.alpha import hard_alpha

OPAQUE_FROM = 250  # alpha from which a pixel counts as pure car color
CELL = 4  # pixels; means of colors are smooth, so they are computed on a sixteenth of the pixels
SPREAD = 2  # cells averaged to each side
LEVELS = 3  # cells of 4, 8 and 16 pixels: car colors are found within 8, 16 and 32 pixels


def decontaminate_edges(image: Image.Image, alpha: NDArray[np.uint8]) -> Image.Image:
    """Remove the background's color from the soft edges of an image.

    A pixel with 0 < alpha < 255 mixes car and background: on a dark background it would be a pale
    line. Its color C becomes ``alpha C + (1 - alpha) M``. M is the mean of the nearby pixels with
    alpha of at least `OPAQUE_FROM`: within 8 pixels if there are enough of them, else within 16, or
    within 32. A pixel without such neighbors keeps C.

    Args:
        image: RGB, [H, W].
        alpha: uint8 [H, W].

    Returns:
        RGB, [H, W]. Pixels with alpha of 0 or 255 are unchanged.
    """
    height, width = alpha.shape
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    if not len(edge):
        return image
    edge, mean = _opaque_means(image, alpha, edge)
    pixels = np.array(image).reshape(-1, 3)
    weight = alpha.reshape(-1)[edge, None] / np.float32(255)
    pixels[edge] = np.rint(weight * pixels[edge] + (1 - weight) * mean)
    return Image.fromarray(pixels.reshape(height, width, 3))


def _opaque_means(
    image: Image.Image, alpha: NDArray[np.uint8], edge: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the pixels of an edge that have opaque pixels nearby, and the mean color of these.

    Args:
        image: RGB, [H, W].
        alpha: uint8 [H, W].
        edge: [n], indices of pixels in the flattened image.

    Returns:
        [m] of `edge`, and [m, 3] of 0..255.
    """
    weighted = image.copy()
    weighted.putalpha(Image.fromarray(hard_alpha(alpha >= OPAQUE_FROM)))
    cells = weighted.convert("RGBa").reduce(CELL)
    found, colors, side = [edge[:0]], [np.empty((0, 3), np.float32)], CELL
    for level in range(LEVELS):
        if level:
            cells, side = cells.reduce(2), 2 * side
        y, x = np.divmod(edge, alpha.shape[1])
        near = _sample_bilinear(_window_means(cells), (y + 0.5) / side, (x + 0.5) / side)
        has_car = near[:, 3] >= 0.5
        found.append(edge[has_car])
        colors.append(near[has_car, :3] / near[has_car, 3:])
        edge = edge[~has_car]
        if not len(edge):
            break
    return np.concatenate(found), np.concatenate(colors)


def _window_means(cells: Image.Image) -> NDArray[np.float32]:
    """Return the mean color within `SPREAD` cells of each cell, by the cells' opacity.

    Args:
        cells: RGBa (colors times opacity), [h, w].

    Returns:
        [h, w, 4]: red, green, blue and 1; zeros where less than one cell's worth is opaque.
    """
    levels = np.asarray(cells, dtype=np.float32) / np.float32(255)
    h, w, _ = levels.shape
    padded = np.pad(levels, [(SPREAD, SPREAD), (SPREAD, SPREAD), (0, 0)])
    window = range(2 * SPREAD + 1)
    column_sums = functools.reduce(np.add, (padded[start : start + h] for start in window))
    sums = functools.reduce(np.add, (column_sums[:, start : start + w] for start in window))
    weight = sums[..., 3:]
    means = np.where(weight >= 1, sums / np.maximum(weight, 1), 0)
    means[..., :3] *= 255
    return means


def _sample_bilinear(
    values: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return values [h, w, c] at n points (y, x): [n, c]. The center of cell 0 is at 0.5."""
    h, w, _ = values.shape
    y, x = np.clip(y - 0.5, 0, h - 1), np.clip(x - 0.5, 0, w - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom, right = np.minimum(top + 1, h - 1), np.minimum(left + 1, w - 1)
    dy, dx = ((position % 1).astype(np.float32)[:, None] for position in (y, x))
    upper = values[top, left] * (1 - dx) + values[top, right] * dx
    lower = values[bottom, left] * (1 - dx) + values[bottom, right] * dx
    return upper * (1 - dy) + lower * dy
