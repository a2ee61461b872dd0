"""Pieces of a mask, found from its runs. A piece is a 4-connected part of the mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RowRuns:
    """Runs that do not cross the end of an image row, in order; each field is int64 [n]."""

    row: Ints
    left: Ints
    right: Ints  # exclusive

    def __len__(self) -> int:
        return len(self.row)

    @property
    def length(self) -> Ints:
        return self.right - self.left


def split_at_rows(starts: Ints, ends: Ints, width: int) -> RowRuns:
    """Return the runs [start, end) of a flattened image, cut where an image row ends."""
    first, last = starts // width, (ends - 1) // width
    rows = last - first + 1
    run = np.repeat(np.arange(len(starts)), rows)
    row = np.arange(len(run)) - np.repeat(np.cumsum(rows) - rows, rows) + first[run]
    left = np.maximum(starts[run], row * width) - row * width
    right = np.minimum(ends[run], (row + 1) * width) - row * width
    return RowRuns(row, left, right)


def touching_runs(runs: RowRuns, width: int, corners: bool = False) -> tuple[Ints, Ints]:
    """Return all pairs of touching runs in adjacent rows, as indices (upper, lower), int64 [pairs].

    With `corners`, runs that only meet at a corner touch too.
    """
    reach = int(corners)
    stride = width + 2  # so that a run and its corner stay within their row
    starts, ends = runs.row * stride + runs.left + 1, runs.row * stride + runs.right + 1
    first = np.searchsorted(ends, starts + stride - reach, side="right")
    last = np.searchsorted(starts, ends + stride + reach, side="left")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(runs)), count)
    offset = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, first[upper] + offset


def label_components(count: int, source: Ints, target: Ints) -> Ints:
    """Return for each of `count` nodes the smallest node of its connected component, int64 [count].

    `source` and `target` are the two ends of each edge, int64 [edges].
    """
    label = np.arange(count)
    while True:
        before = label.copy()
        smallest = np.minimum(label[source], label[target])
        np.minimum.at(label, label[source], smallest)  # the roots first, to join whole trees
        np.minimum.at(label, label[target], smallest)
        np.minimum.at(label, source, smallest)
        np.minimum.at(label, target, smallest)
        label = label[label]
        if np.array_equal(label, before):
            return label


def piece_sizes(runs: RowRuns, width: int) -> Ints:
    """Return for each run the number of pixels of the piece that it belongs to, int64 [n]."""
    label = label_components(len(runs), *touching_runs(runs, width))
    return np.bincount(label, weights=runs.length, minlength=len(runs))[label].astype(np.int64)
