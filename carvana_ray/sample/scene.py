"""A car in front of the camera: its faces in world axes and pixels, and their painting order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample import camera
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car
from carvana_ray.sample.meshes import CarMeshes
from carvana_ray.sample.raster import Box, Floats, far_first, is_front_facing
from carvana_ray.sample.surfaces import join_meshes

_HALF_WIDTH_M = 1.0  # of any car: a camera farther out sees a side
_MAST_PX = 260  # no mast of an antenna is higher


@dataclass(frozen=True)
class Scene:
    """All faces of an image, numbered through.

    Attributes:
        points, normals: vertices and their normals in world axes, [F, 4, 3].
        uv: texture coordinates of the vertices, [F, 4, 2].
        pixels: vertices in the image, [F, 4, 2].
        depth: distance of the vertices from the camera along Y, in meters, [F, 4].
        front_facing: whether a face shows the camera its outer side, [F].
        parts: numbers of the faces of each part, by name.
    """

    points: Floats
    normals: Floats
    uv: Floats
    pixels: Floats
    depth: Floats
    front_facing: NDArray[np.bool_]
    parts: dict[str, range]

    def faces_of(self, part: str) -> NDArray[np.int64]:
        """Return the faces of a part; none if the car lacks it."""
        return np.array(self.parts.get(part, range(0)), dtype=np.int64)

    def front_faces(self, part: str) -> NDArray[np.int64]:
        """Return the front-facing faces of a part, the farthest first."""
        faces = self.faces_of(part)
        return far_first(faces[self.front_facing[faces]], self.depth)


def build_scene(car: Car, meshes: CarMeshes, view: int) -> Scene:
    """Place the car on the turntable, rotated to a view (1..16)."""
    named = {"shell": meshes.shell, "well": meshes.well, "interior": meshes.interior}
    named |= {f"wheel{number}": wheel for number, wheel in enumerate(meshes.wheels)}
    named |= {f"mirror{number}": mirror for number, mirror in enumerate(meshes.mirrors)}
    named |= {f"rail{number}": rail for number, rail in enumerate(meshes.rails)}
    named |= {
        name: mesh
        for name, mesh in (("fin", meshes.fin), ("low", meshes.low), ("high", meshes.high))
        if mesh
    }
    parts, start = {}, 0
    for name, mesh in named.items():
        parts[name] = range(start, start := start + len(mesh.points))
    whole = join_meshes(list(named.values()))
    points = camera.car_to_world(whole.points, car, view)
    normals = camera.to_world(whole.normals, view, car.turn_deg)
    pixels, depth = camera.project(points, car.studio)
    front_facing = is_front_facing(points, normals, camera.camera_position(car.studio))
    uv = whole.uv.astype(np.float32)
    return Scene(points, normals, uv, pixels, depth, front_facing, parts)


def paint_order(scene: Scene, camera_at: Floats) -> NDArray[np.int64]:
    """Return the faces visible from outside, in painting order (painter's algorithm).

    The shell covers the wheels and the well. Mirrors and rails on the far side come before it.

    Args:
        scene: the faces.
        camera_at: position of the camera in car axes, [3].
    """
    near = _near_sides(camera_at)
    wheels = [f"wheel{number}" for number in range(4)]
    wheels.sort(key=lambda name: -float(scene.depth[scene.faces_of(name)].mean()))
    far_wheels = [name for name in wheels if int(name[-1]) % 2 not in near]
    near_wheels = [name for name in wheels if name not in far_wheels]
    # Seen from the front, both mirrors stick out of the body.
    from_front = bool(camera_at[0] > 0.6 * np.hypot(*camera_at[:2]))
    mirrors, rails = ["mirror0", "mirror1"], ["rail0", "rail1"]
    near_mirrors = [name for name in mirrors if from_front or int(name[-1]) in near]
    far_mirrors = [name for name in mirrors if name not in near_mirrors]
    near_rails = [name for name in rails if int(name[-1]) in near or not near]
    far_rails = [name for name in rails if name not in near_rails]
    names = [*far_mirrors, *far_rails, *far_wheels, "well", "low", *near_wheels]
    names += ["shell", *near_rails, "fin", "high", *near_mirrors]
    return np.concatenate([scene.front_faces(name) for name in names])


def _near_sides(camera_at: Floats) -> tuple[int, ...]:
    """Return the sides that face the camera: 0 left, 1 right; none in front and rear views."""
    if abs(camera_at[1]) < _HALF_WIDTH_M:
        return ()
    return (0,) if camera_at[1] > 0 else (1,)


def bounding_box(scene: Scene) -> Box:
    """Return the part of the image that holds the car and its antenna."""
    low, high = scene.pixels.min(axis=(0, 1)), scene.pixels.max(axis=(0, 1))
    left, top = max(0, int(low[0]) - 6), max(0, int(low[1]) - _MAST_PX)
    return left, top, min(WIDTH, int(high[0]) + 6), min(HEIGHT, int(high[1]) + 6)
