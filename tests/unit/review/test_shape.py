"""The shape of a mask from its runs, against counting the pixels one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from carvana_ray import rle
from carvana_ray.review.shape import MaskShape, measure

Mask = NDArray[np.bool_]
NEXT = [(0, 1), (1, 0), (0, -1), (-1, 0)]
CORNERS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]


def parts_of(mask: Mask, steps: list[tuple[int, int]]) -> list[int]:
    """Return the pixels of each connected part, by walking."""
    todo = set(zip(*map(list, np.nonzero(mask)), strict=True))
    sizes = []
    while todo:
        front, size = [todo.pop()], 0
        while front:
            y, x = front.pop()
            size += 1
            near = {(y + dy, x + dx) for dy, dx in steps} & todo
            todo -= near
            front += near
        sizes.append(size)
    return sizes


def holes_of(mask: Mask) -> list[int]:
    """Return the pixels of each part of the background that a mask encloses."""
    around = np.pad(~mask, 1, constant_values=True)
    outside = {(0, 0)}
    front = [(0, 0)]
    while front:
        y, x = front.pop()
        for dy, dx in NEXT + CORNERS:
            at = (y + dy, x + dx)
            inside = 0 <= at[0] < around.shape[0] and 0 <= at[1] < around.shape[1]
            if inside and around[at] and at not in outside:
                outside.add(at)
                front.append(at)
    for at in outside:
        around[at] = False
    return parts_of(around, NEXT + CORNERS)


def shape_of(mask: Mask) -> MaskShape:
    return measure(rle.encode(mask), *mask.shape)


def check(mask: Mask) -> None:
    shape = shape_of(mask)
    assert (shape.height, shape.width, shape.area) == (*mask.shape, int(mask.sum()))
    if not mask.any():
        assert shape == MaskShape(*mask.shape)
        return
    y, x = np.nonzero(mask)
    box = y.min(), y.max() + 1, x.min(), x.max() + 1
    assert shape.center_x == pytest.approx((x + 0.5).mean())
    assert shape.center_y == pytest.approx((y + 0.5).mean())
    assert shape.spread_x == pytest.approx(np.sqrt(x.var() + 1 / 12))
    assert shape.spread_y == pytest.approx(np.sqrt(y.var() + 1 / 12))
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    assert shape.xy_correlation == pytest.approx(
        covariance / (shape.spread_x * shape.spread_y), abs=1e-9
    )
    pieces, holes = parts_of(mask, NEXT), holes_of(mask)
    assert (shape.pieces, shape.stray_pixels) == (len(pieces), sum(pieces) - max(pieces))
    assert (shape.holes, shape.largest_hole) == (len(holes), max(holes, default=0))
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert shape.perimeter_ratio == pytest.approx(edges / (2 * (box[1] - box[0] + box[3] - box[2])))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_shapes_equal_those_from_counting(height: int, width: int, fill: float, seed: int) -> None:
    check(np.random.default_rng(seed).random((height, width)) < fill)


@pytest.mark.parametrize(
    "rows",
    [
        ["#"],
        ["."],
        ["###", "#.#", "###"],  # one hole
        ["###", "#.#", "##."],  # it opens at a corner
        [".#.", "#.#", ".#."],  # four pieces around nothing: corners join no pieces
        ["##.##", "##.##"],
        ["#####", "#.#.#", "#####", "....#", "##..#"],
        ["..##", "##.."],  # runs that touch in the text, over the end of a row
    ],
)
def test_shapes_that_are_easily_got_wrong(rows: list[str]) -> None:
    check(np.array([[pixel == "#" for pixel in row] for row in rows]))


def test_an_antenna_does_not_move_the_middle() -> None:
    mask = np.zeros((400, 600), dtype=bool)
    mask[200:300, 100:500] = True
    before = shape_of(mask)
    mask[100:200, 300:302] = True
    after = shape_of(mask)
    assert after.area > before.area
    assert after.first_y == pytest.approx(before.first_y, abs=1)
    assert (before.first_y, before.last_y) == (pytest.approx(201), pytest.approx(299))


def test_an_invalid_text_is_rejected() -> None:
    with pytest.raises(ValueError, match="odd-count"):
        measure("1 2 3", 4, 4)
