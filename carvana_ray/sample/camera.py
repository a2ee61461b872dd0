"""The camera: car axes to world axes to pixels.

World axes: X to the right of the image, Y away from the camera, Z up; the origin is the center of
the turntable, on the floor. Car axes: x forward, y to the car's left, z up. Lengths are in meters.
"""

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.car import Car, Studio

WIDTH, HEIGHT = 1918, 1280
VIEWS = 16

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


def to_car(point: Points, car: Car, view: int) -> Points:
    """Return a point [3] in car axes, given in world axes: the inverse of `car_to_world`."""
    turn = to_world(np.eye(3), view, car.turn_deg)
    return np.asarray(turn @ point, dtype=np.float32) - np.array([*car.offset_m, 0.0], np.float32)


def project(points: Points, studio: Studio) -> tuple[Points, Points]:
    """Return the pixels [..., 2] of world points [..., 3], and their depth [...] in meters.

    The lens is shifted: without a tilt the image plane is vertical. The real camera is slightly
    tilted, which makes less of a difference than there is between cars.
    """
    depth = points[..., 1] + np.float32(studio.distance_m)
    down = np.float32(studio.camera_height_m) - points[..., 2]
    if studio.tilt_deg:
        sine, cosine = (np.float32(f(np.radians(studio.tilt_deg))) for f in (np.sin, np.cos))
        depth, down = depth * cosine + down * sine, down * cosine - depth * sine
    depth = np.maximum(depth, np.float32(0.05))
    scale = np.float32(studio.focal_px) / depth
    x = np.float32(studio.center_x) + points[..., 0] * scale
    y = np.float32(studio.horizon) + down * scale
    if studio.roll_deg:
        sine, cosine = (np.float32(f(np.radians(studio.roll_deg))) for f in (np.sin, np.cos))
        dx, dy = x - np.float32(WIDTH / 2), y - np.float32(HEIGHT / 2)
        x = np.float32(WIDTH / 2) + dx * cosine - dy * sine
        y = np.float32(HEIGHT / 2) + dx * sine + dy * cosine
    return np.stack([x, y], axis=-1), depth


def car_to_world(points: AnyPoints, car: Car, view: int) -> Points:
    """Return points [..., 3] in world axes, given in car axes, with the car as it is parked."""
    parked = np.array([*car.offset_m, 0.0])
    return to_world(points + parked, view, car.turn_deg)


def camera_position(studio: Studio) -> Points:
    """Return the position of the camera, [3] in world axes."""
    return np.array([0.0, -studio.distance_m, studio.camera_height_m], dtype=np.float32)
