"""Pieces from runs, against walking from pixel to pixel. Shapes of masks test the rest."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray import rle
from carvana_ray.images.pieces import label_components, piece_sizes, split_at_rows


def test_labels_join_long_chains() -> None:
    order = np.random.default_rng(0).permutation(2000)
    labels = label_components(2000, order[:-1], order[1:])
    assert set(labels.tolist()) == {0}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_each_run_knows_the_size_of_its_piece(h: int, w: int, fill: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((h, w)) < fill
    runs = split_at_rows(*rle.mask_to_runs(mask), w)
    sizes = piece_sizes(runs, w)
    for row, left, size in zip(runs.row, runs.left, sizes, strict=True):
        assert size == _walk(mask, row, left)


def _walk(mask: np.ndarray, row: int, column: int) -> int:
    """Return the number of pixels of the piece of a pixel."""
    front, seen = [(row, column)], set()
    while front:
        y, x = front.pop()
        inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
        if inside and mask[y, x] and (y, x) not in seen:
            seen.add((y, x))
            front += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return len(seen)
