"""The light of varied scenes: what falls on a car, what it reflects, and its hard shadow."""

import math

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.car import Light, Studio

Floats = NDArray[np.float32]


def draw_light(rng: np.random.Generator, calm: bool) -> Light:
    """Return random light: from the even light of a studio to a single hard lamp."""
    hard = float(rng.uniform(0, 0.3 if calm else 0.75) * (rng.uniform() < 0.5))
    height = rng.uniform(0.35, 1.4)  # radians above the floor
    around = rng.uniform(0, 2 * math.pi)
    across, away = math.cos(height) * math.cos(around), math.cos(height) * math.sin(around)
    has_cast = rng.uniform() < 0.1 if calm else hard > 0.1 or rng.uniform() < 0.25
    return Light(
        ambient=float(rng.uniform(0.72 if calm else 0.6, 1.02)) - 0.5 * hard,
        up=float(rng.uniform(0.0, 0.4)),
        down=float(rng.uniform(0.15, 0.55)) * (1 - 0.4 * hard),
        foot=float(rng.uniform(0.5, 0.95)),
        key=(hard * across, hard * away, hard * math.sin(height)),
        front=float(rng.uniform(0.5, 1.0)),
        behind=float(rng.uniform(0.0, 0.6)),
        black=float(rng.uniform(0.02, 0.07)),
        lamps_seed=int(rng.integers(2**31)),
        shadow=float(
            rng.uniform(0.5, 1.9) if calm or rng.uniform() < 0.7 else rng.uniform(0.0, 0.6)
        ),
        contact=float(rng.uniform(0.6, 1.3) if calm or rng.uniform() < 0.85 else 0.0),
        under=float(rng.uniform(0.62, 0.96) if rng.uniform() < (0.93 if calm else 0.6) else 0.0),
        cast=(-across / math.sin(height), -away / math.sin(height)) if has_cast else None,
        cast_shade=float(rng.uniform(0.1, 0.6)),
        cast_blur_px=float(rng.choice((rng.uniform(0.5, 2), rng.uniform(2, 10)))),
    )


def environment(studio: Studio, size: int) -> Floats:
    """Return the light that comes from each direction, [up, right], 1 for a white wall."""
    rng = np.random.default_rng(studio.light.lamps_seed)
    up = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
    right = np.linspace(-1, 1, size, dtype=np.float32)[None, :]
    ground = (studio.floor_level / 255) ** 2 * rng.uniform(0.4, 1.1)
    # Steep reflections show the shadow of the car.
    floor = ground * (1 - rng.uniform(0.2, 0.9) * (1 - _ramp(up, rng.uniform(-0.7, -0.2), 0.4)))
    wall = (studio.wall_level / 255) ** 2 * rng.uniform(0.6, 1.1) + rng.normal(0, 0.15) * right
    wall = wall * (1 - rng.uniform(0, 0.35) * np.abs(up))
    horizon = _ramp(up, rng.normal(0.0, 0.06), rng.choice((0.04, 0.1, 0.3)))
    light = floor + (wall - floor) * horizon + _lamps(rng, up, right)
    return np.ascontiguousarray(np.clip(light, 0.01, 10), dtype=np.float32)


def uneven(light: Light, points: Floats, normals: Floats) -> Floats:
    """Return smooth factors of the light at points [..., 3]: the mirror images of a room."""
    rng = np.random.default_rng((light.lamps_seed or 0, 1))
    strength = rng.uniform(0, 0.22)
    total = np.ones(points.shape[:-1], dtype=np.float32)
    for _ in range(3):
        wave = points @ rng.normal(0, 1.2, 3) + normals @ rng.normal(0, 2.5, 3)
        total += strength * np.sin(wave + rng.uniform(0, 6.28))
    return np.maximum(total, np.float32(0.25))


def _lamps(rng: np.random.Generator, up: Floats, right: Floats) -> Floats:
    """Return panels of light under the ceiling, soft boxes on the sides and dark objects."""
    light = np.zeros((up.size, right.size), dtype=np.float32)
    ceiling = _ramp(up, rng.uniform(0.35, 0.75), 0.12)
    stripes = np.sin(rng.uniform(3, 16) * right + rng.uniform(0, 6.28))
    light += ceiling * rng.uniform(-0.4, 0.5)
    light += ceiling * np.exp(rng.uniform(-2, 1.6)) * np.clip(0.5 + 2 * stripes, 0, 1)
    for _ in range(int(rng.integers(1, 12))):
        x, z = rng.uniform(-0.9, 0.9), rng.uniform(-0.05, 0.8)
        width, height = np.exp(rng.uniform(np.log(0.03), np.log(0.5), 2))
        patch = _band(right, x, width) * _band(up, z, height)
        light += patch * np.float32(
            rng.choice((rng.uniform(-0.6, 0), np.exp(rng.uniform(-1, 2.2))))
        )
    return light


def _ramp(value: Floats, middle: float, width: float) -> Floats:
    """Return a smooth step from 0 to 1 about the middle."""
    step = np.clip((value - middle) / width + 0.5, 0, 1)
    return np.asarray(step * step * (3 - 2 * step), dtype=np.float32)


def _band(value: Floats, middle: float, width: float) -> Floats:
    """Return 1 within a band, smooth at its edges."""
    distance = np.abs(value - middle) / (width / 2)
    return np.asarray(np.clip(4 * (1.1 - distance), 0, 1), dtype=np.float32)
