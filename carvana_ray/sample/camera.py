"""The camera: car axes to world axes to pixels.

World axes: X to the right of the image, Y away from the camera, Z up; the origin is the center of
the turntable, on the floor. Car axes: x forward, y to the car's left, z up. Lengths are in meters.
"""

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.car import Car, Studio

WIDTH, HEIGHT = 1918, 1280
VIEWS = 16
FOCAL_PX = 2268.0  # measured in the real images: see `car._draw_studio`

Points = NDArray[np.float32]
AnyPoints = NDArray[np.float32] | NDArray[np.float64]


def to_world(points: AnyPoints, view: int, turn_deg: float) -> Points:
    """Rotate points [..., 3] from car axes to world axes.

    Args:
        points: points in car axes.
        view: position of the turntable, 1..16. View 1 shows the nose, 5 the nose on the left, 9 the
            tail, 13 the nose on the right.
        turn_deg: additional rotation of the car, in degrees.
    """
    angle = np.radians((view - 1) * 360.0 / VIEWS + turn_deg)
    sine, cosine = np.sin(angle), np.cos(angle)
    forwards = np.array([-sine, -cosine, 0.0])
    left = np.array([cosine, -sine, 0.0])
    turn = np.stack([forwards, left, [0.0, 0.0, 1.0]])
    return np.asarray(points @ turn, dtype=np.float32)


def project(points: Points, studio: Studio) -> tuple[Points, Points]:
    """Return the pixels [..., 2] of world points [..., 3], and their depth [...] in meters.

    The image plane is vertical and the lens is shifted. The real camera is slightly tilted, which
    makes less of a difference than there is between cars.
    """
    depth = points[..., 1] + np.float32(studio.distance_m)
    scale = np.float32(FOCAL_PX) / depth
    x = np.float32(studio.center_x) + points[..., 0] * scale
    y = np.float32(studio.horizon) + (np.float32(studio.camera_height_m) - points[..., 2]) * scale
    return np.stack([x, y], axis=-1), depth


def car_to_world(points: AnyPoints, car: Car, view: int) -> Points:
    """Return points [..., 3] in world axes, given in car axes, with the car as it is parked."""
    parked = np.array([*car.offset_m, 0.0])
    return to_world(points + parked, view, car.turn_deg)


def camera_position(studio: Studio) -> Points:
    """Return the position of the camera, [3] in world axes."""
    return np.array([0.0, -studio.distance_m, studio.camera_height_m], dtype=np.float32)
