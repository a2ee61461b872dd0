"""What a mask looks like, in numbers: straight from its runs, without a picture of it.

A mask of 1280 x 1918 pixels has some 1,500 runs, so this takes about a millisecond where decoding
takes ten. A piece is a 4-connected part of the mask; a hole is a part of the background, with
diagonals, that the mask encloses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray import rle

Ints = NDArray[np.int64]
TAIL = 0.01  # share of a mask that lies beyond each side of the box around its middle


@dataclass(frozen=True)
class MaskShape:
    """Of one mask; pixels of the picture, fractional where they are means.

    Attributes:
        height, width: of the picture.
        area: pixels of the mask; all that follows is 0 where there are none.
        top, bottom, left, right: of the box around it, bottom and right exclusive.
        x, y: its centre of mass, from the left and from the top.
        first_x, last_x, first_y, last_y: between these lies the middle `1 - 2 * TAIL` of it: a box
            that neither an antenna nor a stray piece moves.
        spread_x, spread_y: standard deviations of its pixels' places.
        lean: covariance of these places by the product of the spreads, -1..1.
        pieces: how many; stray: pixels outside the largest one.
        holes: how many; hollow: pixels of the largest one.
        outline: length of its edges along the pixel grid, by that of the box: 1 for a convex
            shape, more for ragged ones, holes and pieces.
    """

    height: int
    width: int
    area: int = 0
    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    center_x: float = 0.0
    center_y: float = 0.0
    first_x: float = 0.0
    last_x: float = 0.0
    first_y: float = 0.0
    last_y: float = 0.0
    spread_x: float = 0.0
    spread_y: float = 0.0
    xy_correlation: float = 0.0
    pieces: int = 0
    stray_pixels: int = 0
    holes: int = 0
    largest_hole: int = 0
    perimeter_ratio: float = 0.0


def measure(text: str, height: int, width: int) -> MaskShape:
    """Return the facts of a mask given as run-length text.

    Raises:
        ValueError: see `rle.parse`.
    """
    row, left, right = _by_rows(*rle.parse_runs(text, height * width), width)
    if not len(row):
        return MaskShape(height, width)
    length = right - left
    area = int(length.sum())
    over, below = _touching(row, left, right, width)
    label = label_components(len(row), over, below)
    sizes = np.bincount(label, weights=length)
    x, y, spread_x, spread_y, lean = _moments(row, left, right)
    box = int(row[0]), int(row[-1]) + 1, int(left.min()), int(right.max())
    shared = np.minimum(right[over], right[below]) - np.maximum(left[over], left[below])
    edges = 2 * len(row) + 2 * area - 2 * int(shared.sum())
    holes, hollow = _holes(row, left, right, width)
    return MaskShape(
        height,
        width,
        area,
        *box,
        x,
        y,
        *_middle(np.cumsum(_columns(left, right, width))),
        *_middle(np.cumsum(np.bincount(row, weights=length, minlength=height))),
        spread_x,
        spread_y,
        lean,
        pieces=int((sizes > 0).sum()),
        stray_pixels=area - int(sizes.max()),
        holes=holes,
        largest_hole=hollow,
        perimeter_ratio=edges / (2 * (box[1] - box[0] + box[3] - box[2])),
    )


def _by_rows(starts: Ints, ends: Ints, width: int) -> tuple[Ints, Ints, Ints]:
    """Return (row, left, right) of each run, int64 [n]; one that goes on in the next row is cut."""
    first, last = starts // width, (ends - 1) // width
    rows = last - first + 1
    run = np.repeat(np.arange(len(starts)), rows)
    row = np.arange(len(run)) - np.repeat(np.cumsum(rows) - rows, rows) + first[run]
    left = np.maximum(starts[run], row * width) - row * width
    right = np.minimum(ends[run], (row + 1) * width) - row * width
    return row, left, right


def _touching(row: Ints, left: Ints, right: Ints, width: int, reach: int = 0) -> tuple[Ints, Ints]:
    """Return the pairs (upper, lower) of runs in neighbouring rows that share a column.

    With `reach` 1 those too that meet at a corner.
    """
    wide = width + 2  # so that a reach over the border is none into the next row
    starts, ends = row * wide + left + 1, row * wide + right + 1
    first = np.searchsorted(ends, starts + wide - reach, side="right")
    last = np.searchsorted(starts, ends + wide + reach, side="left")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(row)), count)
    place = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, first[upper] + place


def label_components(count: int, one: Ints, other: Ints) -> Ints:
    """Return for each of `count` nodes the smallest node that edges (one, other) join it to."""
    label = np.arange(count)
    while True:
        before = label.copy()
        least = np.minimum(label[one], label[other])
        np.minimum.at(label, label[one], least)  # the roots first: whole trees are joined
        np.minimum.at(label, label[other], least)
        np.minimum.at(label, one, least)
        np.minimum.at(label, other, least)
        label = label[label]
        if np.array_equal(label, before):
            return label


def _moments(row: Ints, left: Ints, right: Ints) -> tuple[float, float, float, float, float]:
    """Return (x, y, spread_x, spread_y, lean) of pixels given as runs."""
    length = (right - left).astype(np.float64)
    area = length.sum()
    middle = (left + right) / 2
    x, y = float((length * middle).sum() / area), float((length * (row + 0.5)).sum() / area)
    # Of the pixels of a run about its middle: (length^2 - 1) / 12; 1 / 12 more for the pixel's own.
    across = (length * ((middle - x) ** 2 + length**2 / 12)).sum() / area
    down = (length * ((row + 0.5 - y) ** 2 + 1 / 12)).sum() / area
    both = (length * (middle - x) * (row + 0.5 - y)).sum() / area
    lean = float(both / np.sqrt(across * down))
    return x, y, float(np.sqrt(across)), float(np.sqrt(down)), lean


def _columns(left: Ints, right: Ints, width: int) -> Ints:
    """Return the pixels of each column of a mask given as runs, int64 [width]."""
    steps = np.bincount(left, minlength=width + 1) - np.bincount(right, minlength=width + 1)
    return np.cumsum(steps[:width])


def _middle(summed: NDArray) -> tuple[float, float]:
    """Return where `TAIL` and all but `TAIL` of a histogram, given as its sums, is reached."""
    asked = np.array([TAIL, 1 - TAIL]) * summed[-1]
    at = np.searchsorted(summed, asked)
    below = np.where(at > 0, summed[np.maximum(at - 1, 0)], 0)
    found = at + (asked - below) / (summed[at] - below)
    return float(found[0]), float(found[1])


def _holes(row: Ints, left: Ints, right: Ints, width: int) -> tuple[int, int]:
    """Return the number of holes of a mask given as runs, and the pixels of the largest one."""
    inner = np.flatnonzero((row[1:] == row[:-1]) & (left[1:] > right[:-1]))
    if not len(inner):
        return 0, 0
    gap_row, gap_left, gap_right = row[inner], right[inner], left[inner + 1]
    over, below = _touching(gap_row, gap_left, gap_right, width, reach=1)
    label = label_components(len(inner), over, below)
    open_ = np.zeros(len(inner), dtype=bool)
    for step in (-1, 1):  # what is left and right of all runs of a row, and empty rows, is outside
        at = np.searchsorted(row, gap_row + step, side="left")
        end = np.searchsorted(row, gap_row + step, side="right") - 1
        empty = end < at
        first, last = np.minimum(at, len(row) - 1), np.maximum(end, 0)
        open_ |= empty | (gap_left <= left[first]) | (gap_right >= right[last])
    outside = np.zeros(len(inner), dtype=bool)
    np.logical_or.at(outside, label, open_)
    sizes = np.bincount(label, weights=gap_right - gap_left, minlength=len(inner))
    sizes[outside] = 0
    return int((sizes > 0).sum()), int(sizes.max())
