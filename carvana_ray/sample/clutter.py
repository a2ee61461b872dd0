"""Objects that are not the car, on the floor of a varied scene."""

import numpy as np
from PIL import Image, ImageDraw

from carvana_ray.sample import camera
from carvana_ray.sample.car import Studio
from carvana_ray.sample.rooms import gray

Pen = ImageDraw.ImageDraw


class _Spot:
    """A place on the floor, where things are drawn upright with coordinates in meters."""

    def __init__(self, studio: Studio, x: float, y: float) -> None:
        self._studio, self._x, self._y = studio, x, y

    def pixels(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Return the pixels of points (across, up)."""
        world = [(self._x + across, self._y, up) for across, up in points]
        pixels, _ = camera.project(np.array(world, dtype=np.float32), self._studio)
        return [(float(a), float(b)) for a, b in pixels]

    def width(self, meters: float) -> int:
        """Return the width of a line in pixels, at least 1."""
        scale = self._studio.focal_px / max(self._studio.distance_m + self._y, 0.3)
        return max(int(meters * scale), 1)


def draw_clutter(studio: Studio, image: Image.Image, rng: np.random.Generator) -> None:
    """Draw up to nine objects behind and next to the car, the farthest first."""
    often = (0.9, 0.1, 0.0, 0.0) if studio.calm else (0.35, 0.25, 0.25, 0.15)
    count = int(rng.choice((0, 2, 5, 9), p=often))
    pen = ImageDraw.Draw(image)
    depth = np.sort(rng.uniform(-0.25 * studio.distance_m, 7, count))[::-1]
    kinds = (_box, _box, _pole, _cone, _barrel, _plant, _chair, _person, _table, _screen)
    for away in depth:
        reach = 0.5 * (studio.distance_m + away)
        across = rng.uniform(-reach, reach)
        if away < 1.5:  # next to the car
            across = np.copysign(max(abs(across), 1.6), across)
        spot = _Spot(studio, float(across), float(away))
        _ground(pen, spot, rng)
        kinds[int(rng.integers(len(kinds)))](pen, spot, rng)


def _ground(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a patch of shade under an object."""
    half = rng.uniform(0.05, 0.5)
    (x, y), (x2, _) = spot.pixels([(-half, 0.0), (half, 0.0)])
    drop = 0.12 * abs(x2 - x)
    pen.ellipse((min(x, x2), y - drop, max(x, x2), y + drop), fill=gray(rng.uniform(40, 150), rng))


def _box(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a box, a cabinet or a pillar with a darker side and some lines."""
    width, height = np.exp(rng.uniform(np.log(0.15), np.log(1.8), 2))
    base, side = rng.uniform(0, 0.2) * (rng.uniform() < 0.3), width * rng.uniform(-0.4, 0.4)
    level = rng.uniform(10, 250)
    front = [(0, base), (width, base), (width, base + height), (0, base + height)]
    pen.polygon(spot.pixels(front), fill=gray(level, rng))
    edge = width if side > 0 else 0.0
    outline = [
        (edge, base),
        (edge + side, base + 0.05),
        (edge + side, base + height),
        (edge, base + height),
    ]
    pen.polygon(spot.pixels(outline), fill=gray(level * rng.uniform(0.5, 0.9), rng))
    for _ in range(int(rng.integers(0, 5))):
        z = base + rng.uniform(0, height)
        line = spot.pixels([(0, z), (width, z)])
        pen.line(line, fill=gray(level * rng.uniform(0.4, 1.2), rng), width=spot.width(0.02))


def _pole(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a tripod with a lamp, or a pole."""
    height, fill = rng.uniform(0.8, 3.0), gray(rng.uniform(10, 230), rng)
    width = spot.width(rng.uniform(0.02, 0.14))
    if rng.uniform() < 0.6:
        for foot in (-0.4, 0.0, 0.4):
            pen.line(spot.pixels([(foot, 0.0), (0.0, 0.7)]), fill=fill, width=width)
    pen.line(spot.pixels([(0, 0), (0, height)]), fill=fill, width=width)
    if rng.uniform() < 0.6:
        half, tall = rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.5)
        lamp = [
            (-half, height - tall),
            (half, height - tall),
            (half * 0.9, height + tall),
            (-half, height + tall),
        ]
        pen.polygon(spot.pixels(lamp), fill=gray(rng.choice((252, 20, 120)), rng), outline=fill)


def _cone(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a traffic cone."""
    size, level = rng.uniform(0.3, 0.9), rng.uniform(60, 220)
    pen.polygon(spot.pixels([(-0.3 * size, 0), (0.3 * size, 0), (0, size)]), fill=gray(level, rng))
    band = [
        (-0.18 * size, 0.4 * size),
        (0.18 * size, 0.4 * size),
        (0.1 * size, 0.65 * size),
        (-0.1 * size, 0.65 * size),
    ]
    pen.polygon(spot.pixels(band), fill=gray(rng.uniform(180, 254), rng))


def _barrel(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a bin, a barrel, a column or a stack of disks with shaded sides."""
    half, height = rng.uniform(0.1, 0.45), np.exp(rng.uniform(np.log(0.3), np.log(3.5)))
    level, dark = rng.uniform(30, 250), rng.uniform(0.3, 0.9)
    for part in range(8):
        x, x2 = half * (part / 4 - 1), half * ((part + 1) / 4 - 1)
        shade = level * (dark + (1 - dark) * np.sin(np.pi * (part + 0.5) / 8))
        face = [(x, 0), (x2, 0), (x2, height), (x, height)]
        pen.polygon(spot.pixels(face), fill=gray(float(shade), rng))
    for z in np.linspace(0, height, int(rng.integers(2, 7)))[1:-1]:
        line = spot.pixels([(-half, z), (half, z)])
        pen.line(line, fill=gray(level * 0.5, rng), width=spot.width(0.03))


def _plant(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a bush, a tree or a plant in a pot."""
    height, spread = rng.uniform(0.6, 3.0), rng.uniform(0.2, 1.0)
    pen.line(spot.pixels([(0, 0), (0, 0.7 * height)]), fill=(60, 50, 40), width=spot.width(0.06))
    level = rng.uniform(30, 150)
    for _ in range(int(rng.integers(15, 70))):
        x, z = rng.normal(0, 0.5 * spread), height * (0.65 + rng.normal(0, 0.17))
        leaf, lean = rng.uniform(0.04, 0.3) * spread, rng.uniform(-1, 1)
        shape = [
            (x - leaf, z),
            (x, z + 0.4 * leaf),
            (x + leaf, z + lean * leaf),
            (x, z - 0.4 * leaf),
        ]
        fill = gray(level + rng.normal(0, 25), rng)
        pen.polygon(spot.pixels(shape), fill=(int(fill[0] * 0.7), fill[1], int(fill[2] * 0.5)))


def _chair(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a chair."""
    fill, width = gray(rng.uniform(10, 240), rng), spot.width(rng.uniform(0.02, 0.06))
    for x in (-0.22, 0.22):
        pen.line(spot.pixels([(x, 0), (x, 0.45)]), fill=fill, width=width)
        pen.line(spot.pixels([(x * 0.8, 0.05), (x * 0.8, 0.45)]), fill=fill, width=width)
    pen.polygon(spot.pixels([(-0.25, 0.42), (0.25, 0.42), (0.22, 0.5), (-0.22, 0.5)]), fill=fill)
    back = [(-0.22, 0.5), (0.22, 0.5), (0.22, 0.95), (-0.22, 0.95)]
    pen.polygon(spot.pixels(back), fill=fill if rng.uniform() < 0.5 else None, outline=fill)


def _person(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a person."""
    tall, step = rng.uniform(1.5, 1.95), rng.uniform(0.0, 0.25)
    trousers, shirt = gray(rng.uniform(15, 200), rng), gray(rng.uniform(15, 250), rng)
    for side in (-1, 1):
        leg = spot.pixels([(side * step, 0.0), (side * 0.08, 0.48 * tall)])
        pen.line(leg, fill=trousers, width=spot.width(0.14))
        arm = spot.pixels([(side * 0.2, 0.8 * tall), (side * rng.uniform(0.2, 0.45), 0.5 * tall)])
        pen.line(arm, fill=shirt, width=spot.width(0.09))
    body = [(-0.17, 0.46), (0.17, 0.46), (0.21, 0.82), (-0.21, 0.82)]
    pen.polygon(spot.pixels([(x, z * tall) for x, z in body]), fill=shirt)
    (x, y), (x2, y2) = spot.pixels([(-0.09, 0.99 * tall), (0.09, 0.85 * tall)])
    pen.ellipse(
        (min(x, x2), min(y, y2), max(x, x2), max(y, y2)), fill=gray(rng.uniform(70, 200), rng)
    )


def _table(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a table, a bench or a rack with shelves."""
    half, height = rng.uniform(0.3, 1.2), rng.uniform(0.4, 2.2)
    fill, width = gray(rng.uniform(15, 245), rng), spot.width(rng.uniform(0.03, 0.09))
    for z in np.linspace(height, 0, int(rng.integers(2, 6)))[:-1]:
        pen.line(spot.pixels([(-half, z), (half, z)]), fill=fill, width=width)
    for x in (-half, half):
        pen.line(spot.pixels([(x, 0), (x, height)]), fill=fill, width=width)


def _screen(pen: Pen, spot: _Spot, rng: np.random.Generator) -> None:
    """Draw a reflector or a banner."""
    half, height = rng.uniform(0.3, 1.6), rng.uniform(0.8, 2.6)
    level = rng.uniform(20, 254)
    face = [(-half, 0.05), (half, 0.05), (half * rng.uniform(0.8, 1), height), (-half, height)]
    pen.polygon(spot.pixels(face), fill=gray(level, rng), outline=gray(level * 0.6, rng))
