"""Paints, glass and plastics of varied cars."""

from dataclasses import replace

import numpy as np

from carvana_ray.sample.car import Car, Finish, Rgb


def paint(car: Car, rng: np.random.Generator) -> Car:
    """Return the car in other colors: all shades of gray first of all, pale ones most."""
    body = _paint(rng)
    roof = body if rng.uniform() < 0.5 else _paint(rng)
    if rng.uniform() < 0.5:
        roof = ((0.012, 0.012, 0.013), 0.0, float(rng.uniform(0.1, 1.0)), 0.0)
    finishes = {"paint": body, "roof": roof, "lower": _paint(rng), **_glass(rng), **_others(rng)}
    return replace(
        car,
        paint=body[0],
        metallic=body[1],
        finishes=tuple(finishes.items()),
        two_tone=bool(rng.uniform() < 0.22),
        decals_seed=int(rng.integers(2**31)) if rng.uniform() < 0.75 else None,
        mirrors_black=bool(rng.uniform() < 0.3),
        cladding=bool(rng.uniform() < (0.15 if car.style in ("sedan", "coupe") else 0.5)),
        chrome=bool(rng.uniform() < 0.5),
        rim_albedo=float(rng.uniform(0.4, 1.2) if rng.uniform() < 0.75 else rng.uniform(0.01, 0.3)),
    )


def _paint(rng: np.random.Generator) -> Finish:
    """Return a paint whose brightness, as stored, is often near that of walls or floors."""
    kind = rng.choice(4, p=(0.38, 0.22, 0.18, 0.22))
    limits = ((0.74, 0.98), (0.40, 0.74), (0.16, 0.40), (0.05, 0.16))[int(kind)]
    stored = rng.uniform(*limits)  # brightness of the image by its greatest
    saturation = float(rng.choice((0.04, rng.uniform(0.05, 0.35), rng.uniform(0.4, 0.95))))
    hue = rng.uniform(-1, 1, 3)
    hue = hue - hue.max()  # the strongest channel keeps its brightness
    color = np.clip(stored * (1 + saturation * hue), 0.03, 1.0) ** 2
    metalness = float(rng.choice((0.0, rng.uniform(0.0, 0.9))))
    return (
        _rgb(color),
        metalness,
        float(rng.choice((rng.uniform(0.7, 1.5), rng.uniform(1.5, 3.5), 0.1), p=(0.6, 0.35, 0.05))),
        0.0,
    )


def _glass(rng: np.random.Generator) -> dict[str, Finish]:
    tint: Rgb = (0.004, 0.005, 0.005)
    clear = float(rng.choice((rng.uniform(0.4, 0.82), rng.uniform(0.05, 0.4)), p=(0.65, 0.35)))
    dark = float(rng.choice((0.01, rng.uniform(0.03, 0.5))))
    return {
        "glass": (tint, 0.0, float(rng.uniform(0.6, 1.8)), clear),
        "dark_glass": (tint, 0.0, float(rng.uniform(0.6, 1.6)), min(dark, clear)),
    }


def _others(rng: np.random.Generator) -> dict[str, Finish]:
    """Return plastics, tires, lamps and seats."""

    def gray(low: float, high: float, gloss: float, metalness: float = 0.0) -> Finish:
        level = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return (level, level, level), metalness, gloss, 0.0

    bright = float(rng.uniform(0.15, 0.8))
    plate = float(rng.choice((0.9, rng.uniform(0.02, 0.9))))
    return {
        "trim": gray(0.004, 0.02, float(rng.uniform(0.2, 1.0))),
        "plastic": gray(0.006, 0.06, 0.25),
        "tire": gray(0.004, 0.02, float(rng.uniform(0.05, 0.4))),
        "gap": gray(0.002, 0.03, 0.2),
        "cloth": gray(0.01, 0.5, 0.0),
        "lining": gray(0.02, 0.4, 0.0),
        "head_lamp": gray(0.12, 0.9, float(rng.uniform(0.8, 1.8)), 0.6),
        "tail_lamp": ((bright**2, 0.006, 0.009), 0.25, float(rng.uniform(0.6, 1.5)), 0.0),
        "well": gray(0.001, 0.012, 0.0),
        "plate": ((plate, plate, plate), 0.0, 0.3, 0.0),
        "print": gray(0.005, 0.7, 0.5),
        "sticker": gray(0.02, 0.9, 0.4),
    }


def _rgb(color: np.ndarray) -> Rgb:
    red, green, blue = (float(channel) for channel in color)
    return red, green, blue
