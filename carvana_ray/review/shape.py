"""The shape of a mask in numbers, computed from its runs without decoding it.

A mask of 1280 x 1918 pixels has about 1,500 runs, so this takes about 1 ms; decoding takes 10 ms.
A piece is a 4-connected part of the mask. A hole is an 8-connected part of the background that the
mask encloses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray import rle
from carvana_ray.images.pieces import (
    Ints,
    RowRuns,
    label_components,
    split_at_rows,
    touching_runs,
)

TAIL = 0.01  # fraction of a mask's pixels above `first_y`, and of those below `last_y`


@dataclass(frozen=True)
class MaskShape:
    """Shape of one mask. Lengths are in pixels of the image; x points right, y down.

    All fields but height and width are 0 if the mask is empty.

    Attributes:
        height, width: size of the image.
        area: number of pixels of the mask.
        center_x, center_y: center of mass.
        spread_x, spread_y: standard deviations of the pixels' positions.
        xy_correlation: correlation of x and y over the pixels, -1..1; positive if the mask is lower
            on the right.
        first_y, last_y: the interval of y in which `1 - 2 * TAIL` of the pixels lie. Unlike the
            bounding box it does not move with an antenna or a stray piece.
        pieces, holes: number of each.
        stray_pixels: number of pixels outside the largest piece.
        largest_hole: number of pixels of the largest hole.
        perimeter_ratio: length of the outline, inner outlines included, by the perimeter of the
            bounding box. 1 for a shape whose rows and columns have no gaps; more for ragged
            outlines, holes and pieces.
    """

    height: int
    width: int
    area: int = 0
    center_x: float = 0.0
    center_y: float = 0.0
    spread_x: float = 0.0
    spread_y: float = 0.0
    xy_correlation: float = 0.0
    first_y: float = 0.0
    last_y: float = 0.0
    pieces: int = 0
    stray_pixels: int = 0
    holes: int = 0
    largest_hole: int = 0
    perimeter_ratio: float = 0.0


def measure(text: str, height: int, width: int) -> MaskShape:
    """Return the shape of a mask given as run-length text.

    Raises:
        ValueError: the text is invalid; see `rle.parse_runs`.
    """
    runs = split_at_rows(*rle.parse_runs(text, height * width), width)
    if not len(runs):
        return MaskShape(height, width)
    touching = touching_runs(runs, width)
    return MaskShape(
        height,
        width,
        int(runs.length.sum()),
        *_moments(runs),
        *_central_rows(runs),
        *_pieces(runs, *touching),
        *_holes(runs, width),
        _perimeter_ratio(runs, *touching),
    )


def _moments(runs: RowRuns) -> tuple[float, float, float, float, float]:
    """Return center_x, center_y, spread_x, spread_y and xy_correlation of a mask.

    Pixels are unit squares. A run of length L is a 1 x L rectangle, whose variance about its own
    center is L^2 / 12 in x and 1 / 12 in y; the parallel axis theorem adds the squared distance to
    the center of the mask.
    """
    length = runs.length.astype(np.float64)
    area = length.sum()
    middle_x, middle_y = (runs.left + runs.right) / 2, runs.row + 0.5
    center_x = float((length * middle_x).sum() / area)
    center_y = float((length * middle_y).sum() / area)
    variance_x = (length * ((middle_x - center_x) ** 2 + length**2 / 12)).sum() / area
    variance_y = (length * ((middle_y - center_y) ** 2 + 1 / 12)).sum() / area
    covariance = (length * (middle_x - center_x) * (middle_y - center_y)).sum() / area
    correlation = float(covariance / np.sqrt(variance_x * variance_y))
    return center_x, center_y, float(np.sqrt(variance_x)), float(np.sqrt(variance_y)), correlation


def _central_rows(runs: RowRuns) -> tuple[float, float]:
    """Return first_y and last_y: the `TAIL` and `1 - TAIL` quantiles, interpolated in a row."""
    cumulative = np.cumsum(np.bincount(runs.row, runs.length))
    quantiles = np.array([TAIL, 1 - TAIL]) * cumulative[-1]
    row = np.searchsorted(cumulative, quantiles)
    below = np.where(row > 0, cumulative[row - 1], 0)
    first, last = row + (quantiles - below) / (cumulative[row] - below)
    return float(first), float(last)


def _pieces(runs: RowRuns, upper: Ints, lower: Ints) -> tuple[int, int]:
    """Return the number of pieces and of stray pixels, given the touching runs."""
    sizes = np.bincount(label_components(len(runs), upper, lower), weights=runs.length)
    return int((sizes > 0).sum()), int(sizes.sum() - sizes.max())


def _perimeter_ratio(runs: RowRuns, upper: Ints, lower: Ints) -> float:
    """Return the perimeter ratio, given the touching runs.

    The perimeter is the number of pixel edges between mask and background. Each run has a left and
    a right edge. Each pixel has a top and a bottom edge, except where two touching runs share a
    column.
    """
    overlap = np.minimum(runs.right[upper], runs.right[lower])
    overlap -= np.maximum(runs.left[upper], runs.left[lower])
    perimeter = 2 * int(len(runs) + runs.length.sum() - overlap.sum())
    box_height = int(runs.row[-1] - runs.row[0]) + 1
    box_width = int(runs.right.max() - runs.left.min())
    return perimeter / (2 * (box_height + box_width))


def _holes(runs: RowRuns, width: int) -> tuple[int, int]:
    """Return the number of holes and the pixels of the largest."""
    row, left, right = runs.row, runs.left, runs.right
    inner = np.flatnonzero((row[1:] == row[:-1]) & (left[1:] > right[:-1]))
    if not len(inner):
        return 0, 0
    gaps = RowRuns(row[inner], right[inner], left[inner + 1])
    label = label_components(len(gaps), *touching_runs(gaps, width, corners=True))
    outside = np.zeros(len(gaps), dtype=bool)
    np.logical_or.at(outside, label, _touch_outside(gaps, runs))
    sizes = np.bincount(label, weights=gaps.length, minlength=len(gaps))
    sizes[outside] = 0
    return int((sizes > 0).sum()), int(sizes.max())


def _touch_outside(gaps: RowRuns, runs: RowRuns) -> NDArray[np.bool_]:
    """Return whether a gap between two runs touches the outside in an adjacent row, bool [gaps].

    Outside are empty rows, and the pixels left of a row's first run and right of its last one.
    """
    touches = np.zeros(len(gaps), dtype=bool)
    for step in (-1, 1):
        first = np.searchsorted(runs.row, gaps.row + step, side="left")
        last = np.searchsorted(runs.row, gaps.row + step, side="right") - 1
        is_empty = last < first
        first, last = np.minimum(first, len(runs) - 1), np.maximum(last, 0)
        touches |= is_empty | (gaps.left <= runs.left[first]) | (gaps.right >= runs.right[last])
    return touches
