"""Faces in space, and the surfaces that parts of a car are made of. Car axes, in meters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.materials import plain_uv

Floats = NDArray[np.float64]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Mesh:
    """Faces with four vertices each; faces do not share vertices.

    Attributes:
        points: vertices, [F, 4, 3].
        normals: normals of length 1 at the vertices, [F, 4, 3].
        uv: texture coordinates of the vertices in pixels, [F, 4, 2].
    """

    points: Floats
    normals: Floats
    uv: Floats


def join_meshes(meshes: list[Mesh]) -> Mesh:
    """Return one mesh with the faces of all meshes, in order."""
    return Mesh(
        np.concatenate([mesh.points for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
    )


def faces(grid: Floats) -> Floats:
    """Return the vertices of a grid's faces: [S, R, K] becomes [(S - 1) * (R - 1), 4, K]."""
    corners = [grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]]
    return np.stack(corners, axis=2).reshape(-1, 4, grid.shape[-1])


def superquadric(
    center: Point, radii: Point, material: str, power: float = 0.7, rings: int = 9
) -> Mesh:
    """Return a superquadric (Barr 1981): an ellipsoid for power 1, boxier for smaller powers."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rings)[:, None]
    longitude = np.linspace(0, 2 * np.pi, 2 * rings - 1)[None, :]

    def signed_power(value: Floats, power: float) -> Floats:
        return np.sign(value) * np.abs(value) ** power

    def surface(power: float) -> Floats:
        radius = signed_power(np.cos(latitude), power)
        x = radius * signed_power(np.cos(longitude), power)
        y = radius * signed_power(np.sin(longitude), power)
        return np.stack([x, y, signed_power(np.sin(latitude), power) + 0 * longitude], axis=-1)

    normals = surface(2 - power) / np.array(radii)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    points = faces(surface(power) * radii + center)
    return Mesh(points, faces(normals), plain(points, material))


def plain(points: Floats, material: str) -> Floats:
    """Return texture coordinates [F, 4, 2] that show one material on all faces."""
    return np.broadcast_to(np.array(plain_uv(material)), (*points.shape[:2], 2))
