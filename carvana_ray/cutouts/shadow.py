"""The shadow of a car on the floor, from the lower outline of its mask alone.

The car is taken for a box that hovers over the floor on its tires. In the image each point of its
underside lies above the point of the floor below it by one distance, the clearance: that by which
tires reach below the body. So the floor that the car covers ends at the lower convex hull of the
tires and of the body's outline, moved down by the clearance. This holds for all views: sills,
bumpers that overhang, and wheels of the far side. The shade of such a box is dark in the middle and
fades at the edge, here by a flat blur, because the camera looks along the floor.

All lengths are in sizes of the car (see `_Outline`), so the shadow grows with the picture. It is
computed on `CELLS` cells a size. Positions in the image are edges between pixels; y points down.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from carvana_ray import rle
from carvana_ray.images.pieces import piece_sizes, split_at_rows

Floats = NDArray[np.float64]

CELLS = 96
MARGIN = 144  # cells around the car's box: as far as the widest blur reaches
LONGEST = 6  # sizes: a longer mask is no car, and would need too many cells
ANTENNA = 0.005  # fraction of a mask's pixels above what counts as the top of the car
WIDEST_TIRE = 0.6  # what reaches below the body and is wider is a part of it
LEAST, MOST = 0.12, 0.18  # clearance; seen from the front, tires end near the bumper
EVEN = 0.6  # slope of the edge of the covered floor; the outline is steeper at the car's ends
LONG, HIGH = 0.05, 0.45  # a side seen at a grazing angle: more of the car's width, less height
DEPTH = 0.22  # visible depth of the floor below the car
SEEN = 0.10  # above the outline, through holes such as that between sill and step
ROUND = 0.25  # its corners are rounded as far from its ends
FLAT = 0.32  # height of a blur by its width

# Opacity and width of the blur of each layer.
SHADE = 0.75, 0.10
CONTACT = 0.88, 0.032
WIDE = 0.45, 0.33


class _Outline(NamedTuple):
    """The lower outline of a car.

    Attributes:
        size: unit of all lengths, in pixels: height of the car, or its width if that is less.
        left, top, right, bottom: its box, without an antenna.
        low: the row at which the car ends, in each column of the box, float64 [width].
    """

    size: float
    left: int
    top: int
    right: int
    bottom: int
    low: Floats


def cast_shadow(alpha: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """Return the shadow of a car on the floor that it stands on.

    Args:
        alpha: of an upright cut-out, uint8 [H, W]; the car is where it is 128 or more. Pieces of
            less than a tenth of the largest one are ignored.
        kind: ``none``, ``contact`` or ``soft``, which adds a wide weak shadow.

    Returns:
        Opacity of black below the car, uint8 [H, W]: 0 without a car.
    """
    shadow = np.zeros_like(alpha)
    outline = _lower_outline(alpha >= 128)
    if kind == "none" or outline is None:
        return shadow
    cell = outline.size / CELLS
    cells = _opacity(outline, kind)
    height, width = alpha.shape
    # The cells are centered below the car, so that a mirrored car has the mirrored shadow.
    x = (outline.left + outline.right - cells.shape[1] * cell) / 2
    y = outline.bottom - (cells.shape[0] - MARGIN) * cell
    left, right = max(0, int(np.ceil(x))), min(width, int(x + cells.shape[1] * cell))
    top, bottom = max(0, int(np.ceil(y))), min(height, int(y + cells.shape[0] * cell))
    box = (left - x) / cell, (top - y) / cell, (right - x) / cell, (bottom - y) / cell
    part = Image.fromarray(cells).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR, box
    )
    shadow[top:bottom, left:right] = np.asarray(part)
    return shadow


def _lower_outline(mask: NDArray[np.bool_]) -> _Outline | None:
    runs = split_at_rows(*rle.mask_to_runs(mask), mask.shape[1])
    if not len(runs):
        return None
    sizes = piece_sizes(runs, mask.shape[1])
    kept = 10 * sizes >= sizes.max()
    rows, lefts, rights = runs.row[kept], runs.left[kept], runs.right[kept]
    pixels = np.cumsum(rights - lefts)
    top, bottom = rows[np.searchsorted(pixels, ANTENNA * pixels[-1])], rows[-1] + 1
    left, right = lefts.min(), rights.max()
    low = np.full(right - left, np.nan)
    for row, first, last in zip(rows, lefts - left, rights - left, strict=True):
        low[first:last] = row + 1  # rows come from top to bottom: the last one stays
    known = np.flatnonzero(~np.isnan(low))
    low = np.interp(np.arange(len(low)), known, low[known])
    height, width = bottom - top, right - left
    size = max(min(height, width), max(height, width) / LONGEST)
    return _Outline(size, left, top, right, bottom, low)


def _opacity(outline: _Outline, kind: str) -> NDArray[np.uint8]:
    """Return the opacity of a shadow, uint8 [rows, columns] of cells.

    The columns are centered below the car's box, the last `MARGIN` of the rows are below it.
    """
    cell = outline.size / CELLS
    width = len(outline.low)
    count = int(np.ceil(width / cell))
    rows = int(np.ceil((outline.bottom - outline.top) / cell)) + MARGIN
    centers = width / 2 + (np.arange(count) - (count - 1) / 2) * cell - 0.5
    low = (np.interp(centers, np.arange(width), outline.low) - outline.bottom) / cell
    low += rows - MARGIN
    tires = low - _without_bumps(low)
    clearance = np.clip(tires.max(), LEAST * CELLS, MOST * CELLS)
    edge, first, last = _covered(np.maximum(low, low - tires + clearance))
    columns = np.arange(count)
    covered = (columns >= first) & (columns <= last)
    inset = np.clip(np.minimum(columns - first, last - columns) / (ROUND * CELLS), 0, 1)
    depth = np.maximum(DEPTH * CELLS, edge - low + SEEN * CELLS) * np.sqrt(1 - (1 - inset) ** 2)
    floor = _fill(edge - depth, edge, covered, rows)
    soles = _fill(low - 0.06 * CELLS, low + 0.016 * CELLS, covered * _soles(tires), rows)
    light = 1 - SHADE[0] * _blur(floor, SHADE[1])
    light *= 1 - CONTACT[0] * _blur(soles, CONTACT[1])
    if kind == "soft":
        near = _fill(edge - 0.08 * CELLS, edge + 0.08 * CELLS, covered, rows)
        light *= 1 - WIDE[0] * _blur(near, WIDE[1])
    return np.rint(255 * (1 - light)).astype(np.uint8)


def _without_bumps(low: Floats) -> Floats:
    """Return the outline, [n], without what reaches down and is narrower than a tire may be."""
    half = int(WIDEST_TIRE * CELLS / 2)
    return _sliding(np.max, _sliding(np.min, low, half), half)


def _sliding(extreme: Callable[..., Floats], values: Floats, half: int) -> Floats:
    """Return the extreme of the values up to `half` places around each, [n]."""
    padded = np.pad(values, half, mode="edge")
    return extreme(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)


def _soles(tires: Floats) -> Floats:
    """Return how much each column is one where a tire touches the floor, 0..1 [n].

    It is less for what reaches below the body by less than other tires, such as a bumper's corner.

    Args:
        tires: by how many cells the outline reaches below the body, [n].
    """
    tire = np.maximum(_sliding(np.max, tires, int(0.12 * CELLS)), 1e-9)
    lowest = np.clip((tires / tire - 0.6) / 0.35, 0, 1)
    deep = np.clip((tire / CELLS - 0.01) / 0.02, 0, 1)
    return lowest * deep * np.clip((tire / tire.max() - 0.3) / 0.3, 0, 1)


def _covered(ground: Floats) -> tuple[Floats, int, int]:
    """Return the near edge of the floor that a car covers.

    It is the lower convex hull of the ground below the outline, up to where that turns up around
    the car's ends. There the hull is steep and short. It is steep and long, and not as high as a
    mirror, along the side of a car that is seen nearly from the front or from behind.

    Args:
        ground: row of the floor below the outline, [n].

    Returns:
        row of the edge, [n], and its first and last column.
    """
    hull = _lower_hull(ground)
    rows, lowest = ground[hull], int(np.argmax(ground[hull]))
    run, rise = np.diff(hull), np.abs(np.diff(rows))
    is_floor = (rise <= EVEN * run) | ((run > LONG * len(ground)) & (rise < HIGH * CELLS))
    first = min([lowest, *np.flatnonzero(is_floor[:lowest])])
    last = max([lowest, *(lowest + 1 + np.flatnonzero(is_floor[lowest:]))])
    return np.interp(np.arange(len(ground)), hull, rows), int(hull[first]), int(hull[last])


def _lower_hull(rows: Floats) -> NDArray[np.int64]:
    """Return the columns of the corners of the lower convex hull of points (column, row), [k].

    Andrew's monotone chain.
    """
    corners: list[int] = []
    for column, row in enumerate(rows):
        while len(corners) > 1:
            before, corner = corners[-2:]
            rise = (rows[corner] - rows[before]) * (column - before)
            if rise > (row - rows[before]) * (corner - before):
                break
            corners.pop()
        corners.append(column)
    return np.array(corners)


def _fill(top: Floats, bottom: Floats, weight: NDArray, rows: int) -> Floats:
    """Return the weight of each column between two rows, [rows, n]: 0 outside, anti-aliased."""
    row = np.arange(rows)[:, None]
    return weight * np.clip(np.minimum(bottom - row, row + 1 - top), 0, 1)


def _blur(cells: Floats, width: float) -> Floats:
    """Return cells of 0..1, [rows, n], blurred and with `MARGIN` columns more on either side."""
    image = Image.fromarray(
        np.rint(255 * np.pad(cells, ((0, 0), (MARGIN, MARGIN)))).astype(np.uint8)
    )
    radii = width * CELLS, FLAT * width * CELLS
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radii))) / 255
