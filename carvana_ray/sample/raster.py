"""Rasterization: which face each pixel shows, and the interpolation of vertex values.

Pillow fills each face with its number, the farthest first. numpy interpolates the values in the
covered pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
FaceIds = NDArray[np.int32]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def is_front_facing(points: Floats, normals: Floats, camera: Floats) -> NDArray[np.bool_]:
    """Return whether faces show the camera their outer side, bool [F].

    Args:
        points, normals: vertices and their normals, [F, 4, 3].
        camera: position of the camera, [3].
    """
    face_normal = np.cross(points[:, 2] - points[:, 0], points[:, 3] - points[:, 1])
    orientation = np.sign(np.einsum("fk,fk->f", face_normal, normals.sum(axis=1)))
    facing = np.einsum("fk,fk->f", face_normal, camera - points.mean(axis=1))
    return np.asarray(facing * orientation > 0)


def far_first(faces: NDArray[np.int64], depth: Floats) -> NDArray[np.int64]:
    """Return faces in painting order, the farthest first.

    Args:
        faces: numbers of the faces.
        depth: depth of the vertices of all faces, [F, 4].
    """
    return faces[np.argsort(-depth[faces].sum(axis=1), kind="stable")]


def rasterize(pixels: Floats, order: NDArray[np.int64], box: Box) -> FaceIds:
    """Return the number of the face in each pixel plus 1, or 0, int32 [bottom - top, right - left].

    Args:
        pixels: vertices of all faces in the image, [F, 4, 2].
        order: numbers of the faces to paint, in this order.
        box: part of the image.
    """
    left, top, right, bottom = box
    image = Image.new("I", (right - left, bottom - top), 0)
    draw_polygon = ImageDraw.Draw(image).polygon
    corner = np.array([left, top], dtype=np.float32)
    # Pillow truncates coordinates. Rounding limits the error to half a pixel.
    polygons = np.rint(pixels[order] - corner).astype(np.int32).reshape(-1, 8).tolist()
    for polygon, face_id in zip(polygons, (order + 1).tolist(), strict=True):
        draw_polygon(polygon, fill=face_id)
    return np.asarray(image, dtype=np.int32)


class PlaneInterpolator:
    """For each face, planes through the values of its vertices, as functions of the pixel."""

    def __init__(self, pixels: Floats, values: Floats) -> None:
        """Fit planes by least squares.

        Args:
            pixels: vertices in the image, [F, 4, 2].
            values: values of the vertices, [F, 4, K].
        """
        center = pixels.mean(axis=1)
        dx, dy = (pixels - center[:, None]).transpose(2, 0, 1)
        # Half a pixel of regularization, for faces that are seen edge on.
        sxx, syy = (dx * dx).sum(1) + 0.5, (dy * dy).sum(1) + 0.5
        sxy = (dx * dy).sum(1)
        scale = 1 / (sxx * syy - sxy * sxy)
        mean = values.mean(axis=1)
        vx = np.einsum("fc,fck->kf", dx, values - mean[:, None])
        vy = np.einsum("fc,fck->kf", dy, values - mean[:, None])
        self._slope_x = _padded((syy * vx - sxy * vy) * scale)
        self._slope_y = _padded((sxx * vy - sxy * vx) * scale)
        self._offset = _padded(mean.T) - self._slope_x * _padded(center[:, 0])
        self._offset -= self._slope_y * _padded(center[:, 1])

    def at(self, faces: FaceIds, x: Floats, y: Floats, channels: Sequence[int]) -> list[Floats]:
        """Return values of some pixels, a float32 [N] for each channel.

        Args:
            faces: number of each pixel's face plus 1, [N]; 0 gives the value 0.
            x, y: coordinates of the pixels, [N].
            channels: indices of the values, in 0..K - 1.
        """
        result = []
        for k in channels:
            value = self._slope_x[k].take(faces)
            value *= x
            part = self._slope_y[k].take(faces)
            part *= y
            value += part
            value += self._offset[k].take(faces)
            result.append(value)
        return result


def _padded(rows: Floats) -> Floats:
    """Return rows [..., F] with a leading 0, for face id 0."""
    padding = [(0, 0)] * (rows.ndim - 1) + [(1, 0)]
    return np.ascontiguousarray(np.pad(rows, padding), dtype=np.float32)
