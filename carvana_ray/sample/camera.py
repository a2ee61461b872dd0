"""The camera: from metres in the room to pixels. Knows the session, not what stands in the room.

Room axes: X to the right of the picture, Y away from the camera, Z up; the origin is the middle of
the turntable, on the floor. Car axes: x forwards, y to the car's left, z up.
"""

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.car import Car, Studio

WIDTH, HEIGHT = 1918, 1280
VIEWS = 16
# From the real pictures: see `car._draw_room`.
FOCAL_PX = 2268.0

Points = NDArray[np.float32]
AnyPoints = NDArray[np.float32] | NDArray[np.float64]


def to_world(points: AnyPoints, view: int, turn_deg: float) -> Points:
    """Turn points [..., 3] from car axes to room axes, as the turntable stands in `view` (1..16).

    View 1 looks at the nose, 5 has the nose to the left, 9 looks at the tail, 13 to the right.
    """
    angle = np.radians((view - 1) * 360.0 / VIEWS + turn_deg)
    sine, cosine = np.sin(angle), np.cos(angle)
    forwards = np.array([-sine, -cosine, 0.0])
    left = np.array([cosine, -sine, 0.0])
    turn = np.stack([forwards, left, [0.0, 0.0, 1.0]])
    return np.asarray(points @ turn, dtype=np.float32)


def project(points: Points, room: Studio) -> tuple[Points, Points]:
    """Return the pixels [..., 2] of room points [..., 3], and their depth [...] in metres.

    The picture plane stands upright; the lens is shifted instead of tilted, which differs from the
    real, slightly tilted camera by less than the cars differ.
    """
    depth = points[..., 1] + np.float32(room.distance_m)
    scale = np.float32(FOCAL_PX) / depth
    x = np.float32(room.center_x) + points[..., 0] * scale
    y = np.float32(room.horizon) + (np.float32(room.camera_height_m) - points[..., 2]) * scale
    return np.stack([x, y], axis=-1), depth


def car_to_world(points: AnyPoints, car: Car, view: int) -> Points:
    """Turn points [..., 3] from car axes to room axes, the car standing where it was parked."""
    parked = np.array([*car.offset_m, 0.0])
    return to_world(points + parked, view, car.turn_deg)


def camera_position(room: Studio) -> Points:
    """Return where the camera stands, [3] in room axes."""
    return np.array([0.0, -room.distance_m, room.camera_height_m], dtype=np.float32)
