"""Quads to pixels: which quad each pixel shows, and values of its corners spread over it.

Pillow fills the polygons, far ones first, with their numbers; numpy then interpolates whatever is
asked for, in the pixels that are covered. Knows no car, no colour and no light.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
FaceIds = NDArray[np.int32]
Box = tuple[int, int, int, int]


def is_front_facing(points: Floats, normals: Floats, eye: Floats) -> NDArray[np.bool_]:
    """Return which quads [F] show the eye their outer face; corners and normals are [F, 4, 3]."""
    upright = np.cross(points[:, 2] - points[:, 0], points[:, 3] - points[:, 1])
    outwards = np.sign(np.einsum("fk,fk->f", upright, normals.sum(axis=1)))
    seen = np.einsum("fk,fk->f", upright, eye - points.mean(axis=1))
    return np.asarray(seen * outwards > 0)


def far_first(members: NDArray[np.int64], depth: Floats) -> NDArray[np.int64]:
    """Return the members, which index `depth` [F, 4], in the order in which to paint them."""
    return members[np.argsort(-depth[members].sum(axis=1), kind="stable")]


def rasterize(pixels: Floats, order: NDArray[np.int64], box: Box) -> FaceIds:
    """Return the picture of quad numbers plus 1 (0: none) in a box, [bottom - top, right - left].

    Args:
        pixels: corners of all quads [F, 4, 2] in pixels.
        order: the quads to paint, first ones first.
        box: left, top, right, bottom.
    """
    left, top, right, bottom = box
    image = Image.new("I", (right - left, bottom - top), 0)
    fill = ImageDraw.Draw(image).polygon
    corner = np.array([left, top], dtype=np.float32)
    # Pillow cuts coordinates off at the point; rounded, they are half a pixel off at most.
    quads = np.rint(pixels[order] - corner).astype(np.int32).reshape(-1, 8).tolist()
    for quad, number in zip(quads, (order + 1).tolist(), strict=True):
        fill(quad, fill=number)
    return np.asarray(image, dtype=np.int32)


class PlaneInterpolator:
    """For quads, the plane through the values of their corners, as a function of the pixel."""

    def __init__(self, pixels: Floats, values: Floats) -> None:
        """Fit planes by least squares: pixels [F, 4, 2], values [F, 4, K] at the corners."""
        middle = pixels.mean(axis=1)
        dx, dy = (pixels - middle[:, None]).transpose(2, 0, 1)
        # A quad seen edge on has no slope of its own: half a pixel keeps it finite.
        sxx, syy = (dx * dx).sum(1) + 0.5, (dy * dy).sum(1) + 0.5
        sxy = (dx * dy).sum(1)
        scale = 1 / (sxx * syy - sxy * sxy)
        mean = values.mean(axis=1)
        vx = np.einsum("fc,fck->kf", dx, values - mean[:, None])
        vy = np.einsum("fc,fck->kf", dy, values - mean[:, None])
        self.by_x = _padded((syy * vx - sxy * vy) * scale)
        self.by_y = _padded((sxx * vy - sxy * vx) * scale)
        self.base = _padded(mean.T) - self.by_x * _padded(middle[:, 0])
        self.base -= self.by_y * _padded(middle[:, 1])

    def at(self, numbers: FaceIds, x: Floats, y: Floats, which: Sequence[int]) -> list[Floats]:
        """Return the values named in `which` in pixels [N], whose quads have `numbers` (from 1)."""
        found = []
        for k in which:
            value = self.by_x[k].take(numbers)
            value *= x
            part = self.by_y[k].take(numbers)
            part *= y
            value += part
            value += self.base[k].take(numbers)
            found.append(value)
        return found


def _padded(rows: Floats) -> Floats:
    """Return rows [..., F] with a 0 in front, for the number that means no quad."""
    wide = [(0, 0)] * (rows.ndim - 1) + [(1, 0)]
    return np.ascontiguousarray(np.pad(rows, wide), dtype=np.float32)
