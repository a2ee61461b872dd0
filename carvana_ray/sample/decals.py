"""Stickers, stripes, lettering and a second color on the texture of varied cars."""

import numpy as np

from carvana_ray.sample.body import Outline
from carvana_ray.sample.car import Car
from carvana_ray.sample.materials import Pen

_DARK_OR_PALE = ("print", "sticker")


def draw_under(car: Car, lines: Outline, pens: tuple[Pen, Pen, Pen]) -> None:
    """Draw what windows and lamps cover: the roof's color and a lower color."""
    side, front, rear = pens
    style, length = car.proportions, car.length_m
    if car.two_tone:
        x = np.linspace(style.cowl * length - 0.05, min(style.glass_end * length, length), 60)
        low = zip(x[::-1].tolist(), (lines.waist(x[::-1]) + 0.015).tolist(), strict=True)
        side.fill("roof", [(float(x[0]), 2.09), (float(x[-1]), 2.09), *low])
        for pen, at in ((front, style.roof_front), (rear, style.roof_rear)):
            pen.box("roof", -1.2, lines.top_at(at * length) - 0.03, 1.2, 2.09)
    if car.decals_seed is None:
        return
    rng = np.random.default_rng(car.decals_seed)
    if rng.uniform() < 0.15:
        high = lines.waist_at(length / 2) * rng.uniform(0.45, 0.8)
        for pen in pens:
            pen.box("lower", -1.2, 0.0, 7.0, high)


def draw_over(car: Car, lines: Outline, pens: tuple[Pen, Pen, Pen]) -> None:
    """Draw strips, creases, stickers and lettering."""
    if car.decals_seed is None:
        return
    rng = np.random.default_rng((car.decals_seed, 1))
    side, front, rear = pens
    waist = lines.waist_at(car.length_m / 2)
    for _ in range(int(rng.integers(1, 6))):  # strips along the doors
        z, slope = rng.uniform(car.clearance_m + 0.1, waist), rng.normal(0, 0.05)
        start, end = sorted(rng.uniform(0.02, 0.98, 2) * car.length_m)
        material = str(rng.choice(("gap", "chrome", "plastic", "print", "lower")))
        side.line(material, [(start, z), (end, z + slope)], float(rng.choice((0.01, 0.03, 0.06))))
    for pen, width in ((front, car.width_m), (rear, car.width_m)):
        for _ in range(int(rng.integers(1, 7))):
            _panel(pen, rng, (0.0, car.clearance_m + 0.25), width * 0.8, 0.3)
    if rng.uniform() < 0.4:
        for _ in range(int(rng.integers(1, 6))):
            _panel(side, rng, (0.5 * car.length_m, 0.6 * waist), 0.5 * car.length_m, 0.35)
    if rng.uniform() < 0.3:
        at = (rng.uniform(0.3, 0.5) * car.length_m, rng.uniform(0.5, 0.75) * waist)
        _letters(side, rng, at, float(rng.uniform(0.08, 0.3)))


def _panel(
    pen: Pen, rng: np.random.Generator, middle: tuple[float, float], spread: float, size: float
) -> None:
    """Draw a box or a disc at random near a point."""
    across = middle[0] + rng.uniform(-0.5, 0.5) * spread
    up = middle[1] + rng.uniform(-0.5, 0.5) * size
    material = str(rng.choice((*_DARK_OR_PALE, "gap", "grille", "chrome", "plastic", "lower")))
    if rng.uniform() < 0.3:
        pen.disc(material, (across, up), float(rng.uniform(0.02, 0.14)))
    else:
        half_width, half_height = rng.uniform(0.03, size), rng.uniform(0.01, 0.4 * size)
        box = (across - half_width, up - half_height, across + half_width, up + half_height)
        pen.box(material, *box, float(0.5 * half_height * rng.uniform()))


def _letters(pen: Pen, rng: np.random.Generator, start: tuple[float, float], height: float) -> None:
    """Draw letters made of random strokes."""
    material, x = str(rng.choice(_DARK_OR_PALE)), start[0]
    for _ in range(int(rng.integers(3, 10))):
        corners = rng.integers(0, 3, (int(rng.integers(2, 5)), 2)) / 2
        path = [(x + a * 0.6 * height, start[1] + b * height) for a, b in corners.tolist()]
        pen.line(material, path, 0.16 * height)
        x += 0.85 * height
