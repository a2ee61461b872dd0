"""A car put before the camera: its quads in room axes and pixels, and in which order to paint them.

Knows no colour and no light.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample import camera, raster
from carvana_ray.sample import meshes as parts
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car
from carvana_ray.sample.raster import Box, Floats


@dataclass(frozen=True)
class Scene:
    """All quads of a picture, in one numbering.

    `pieces` says which rows each piece takes; `front` which quads show their outer face.
    """

    points: Floats
    normals: Floats
    uv: Floats
    pixels: Floats
    depth: Floats
    front_facing: NDArray[np.bool_]
    parts: dict[str, range]

    def faces_of(self, piece: str) -> NDArray[np.int64]:
        """Return the numbers of a piece's quads; none if the car lacks the piece."""
        return np.array(self.parts.get(piece, range(0)), dtype=np.int64)

    def front_faces(self, piece: str) -> NDArray[np.int64]:
        """Return the quads of a piece that face the camera, far ones first."""
        rows = self.faces_of(piece)
        return raster.far_first(rows[self.front_facing[rows]], self.depth)


def build_scene(car: Car, body: parts.CarMeshes, view: int) -> Scene:
    """Put the car on the turntable."""
    named = {"shell": body.shell, "well": body.well, "inside": body.interior}
    named |= {f"wheel{number}": wheel for number, wheel in enumerate(body.wheels)}
    named |= {f"mirror{number}": mirror for number, mirror in enumerate(body.mirrors)}
    named |= {f"rail{number}": rail for number, rail in enumerate(body.rails)}
    if body.fin:
        named["fin"] = body.fin
    pieces, start = {}, 0
    for name, quads in named.items():
        pieces[name] = range(start, start := start + len(quads.points))
    every = parts.join_meshes(list(named.values()))
    points = camera.car_to_world(every.points, car, view)
    normals = camera.to_world(every.normals, view, car.turn_deg)
    pixels, depth = camera.project(points, car.studio)
    front = raster.is_front_facing(points, normals, camera.camera_position(car.studio))
    spots = every.uv.astype(np.float32)
    return Scene(points, normals, spots, pixels, depth, front, pieces)


def paint_order(scene: Scene, view: int) -> NDArray[np.int64]:
    """Return what of the car can be seen from outside, in the order in which to paint it.

    The shell is painted over the wheels and the dark between them; what stands out on a side that
    is turned away comes before the shell.
    """
    near = _near_sides(view)
    wheels = [f"wheel{number}" for number in range(4)]
    wheels.sort(key=lambda name: -float(scene.depth[scene.faces_of(name)].mean()))
    far = [name for name in wheels if int(name[-1]) % 2 not in near]
    close = [name for name in wheels if name not in far]
    # From ahead both mirrors stand free of the body.
    ahead = view <= 3 or view >= 15
    free = [f"mirror{side}" for side in (0, 1) if ahead or side in near]
    hidden = [f"mirror{side}" for side in (0, 1) if f"mirror{side}" not in free]
    rails = [f"rail{side}" for side in (0, 1)]
    on_top = [name for name in rails if int(name[-1]) in near or len(near) == 0]
    names = [*hidden, *(name for name in rails if name not in on_top), *far, "well", *close]
    names += ["shell", *on_top, "fin", *free]
    return np.concatenate([scene.front_faces(name) for name in names])


def _near_sides(view: int) -> tuple[int, ...]:
    """Return the sides, 0 left and 1 right, that are turned to the camera."""
    if view in (1, 9):
        return ()
    return (0,) if view < 9 else (1,)


def bounding_box(scene: Scene) -> Box:
    """Return the part of the picture that the car is in, with room for an antenna."""
    low, high = scene.pixels.min(axis=(0, 1)), scene.pixels.max(axis=(0, 1))
    left, top = max(0, int(low[0]) - 6), max(0, int(low[1]) - 260)
    return left, top, min(WIDTH, int(high[0]) + 6), min(HEIGHT, int(high[1]) + 6)
