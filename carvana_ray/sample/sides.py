"""The side of a car's texture: sills, windows, doors and the outer ends of the lamps.

Coordinates are (behind the nose, above the floor) in meters.
"""

from itertools import pairwise

import numpy as np

from carvana_ray.sample.body import Outline, arch_radius
from carvana_ray.sample.car import Car
from carvana_ray.sample.front_rear import BOXY_STYLES
from carvana_ray.sample.materials import Pen

_GLASS_FRACTION = 0.80  # of the height from belt line to roof; the rest is roof rail


def draw(car: Car, lines: Outline, pen: Pen) -> None:
    """Draw the texture of a side. Both sides share it."""
    _sills(car, pen)
    _windows(car, lines, pen)
    _doors(car, lines, pen)
    _panel_gaps(car, lines, pen)
    _head_lamp(lines, pen)
    _tail_lamp(car, lines, pen)
    _marker_lamps(car, pen)


def _sills(car: Car, pen: Pen) -> None:
    strip = car.clearance_m + (0.13 if car.cladding else 0.04)
    pen.box("plastic", -0.1, 0.0, car.length_m + 0.1, strip)
    if car.cladding:
        for axle in car.axles_m:
            pen.disc("plastic", (axle, car.wheel_radius_m), arch_radius(car) + 0.05)


def _windows(car: Car, lines: Outline, pen: Pen) -> None:
    style, length = car.proportions, car.length_m
    overlap = {"sedan": 0.045, "coupe": 0.065, "pickup": -0.02}
    last = (style.roof_rear + overlap.get(car.style, -0.035)) * length
    x = np.linspace(style.cowl * length, last, 90)
    low = lines.waist(x) + 0.025
    height = lines.top(x) - low
    high = low + np.minimum(_GLASS_FRACTION * height, height - 0.105)
    visible = high - low > 0.05
    x, low, high = x[visible], low[visible], high[visible]
    # The rear edge of the glass leans forward like the pillar behind it.
    high = np.minimum(high, low + np.maximum(last - x, 0) * 2.2 + 0.06)
    rim = 0.016

    def pane(start: float, end: float, material: str, margin: float) -> None:
        inside = (x >= start) & (x <= end)
        if inside.sum() > 3:
            top = zip(x[inside], high[inside] + margin, strict=True)
            bottom = zip(x[inside][::-1], low[inside][::-1] - margin, strict=True)
            pen.fill(material, [*top, *bottom])

    pane(0, length, "chrome" if car.chrome else "trim", 2 * rim)
    pane(0, length, "trim", rim)
    pillars = [gap * length for gap in style.doors[1:]]
    edges = [float(x[0]) + 0.02, *pillars, last + 0.2]
    rear_glass = "dark_glass" if car.privacy else "glass"
    for number, (start, end) in enumerate(pairwise(edges)):
        pillar = 0.05 if number else 0.0
        glass = "glass" if number == 0 else rear_glass
        pane(start + pillar, min(end - 0.03, last - 0.02), glass, 0)


def _doors(car: Car, lines: Outline, pen: Pen) -> None:
    style, length = car.proportions, car.length_m
    sill = car.clearance_m + (0.14 if car.cladding else 0.085)
    arch = car.axles_m[1] - arch_radius(car)
    first, last = style.doors[0] * length, style.doors[-1] * length
    for gap in style.doors:
        x = gap * length
        waist = lines.waist_at(x)
        path = [(x, waist + 0.015), (x + 0.01, (waist + sill) / 2), (x - 0.01, sill)]
        if gap == style.doors[-1] and last > arch - 0.10:  # the door ends at the wheel arch
            path = [(x, waist), (x + 0.02, waist - 0.12), (arch - 0.03, sill + 0.30)]
            path.append((arch - 0.10, sill))
        pen.line("gap", path)
    pen.line("gap", [(first, sill), (min(last, arch - 0.10), sill)])
    for gap in style.doors[1:]:
        x = min(gap * length, last) - 0.09
        waist = lines.waist_at(x)
        handle = "chrome" if car.chrome else "paint"
        pen.box("gap", x - 0.19, waist - 0.135, x, waist - 0.098, 0.015)
        pen.box(handle, x - 0.20, waist - 0.12, x + 0.01, waist - 0.09, 0.012)


def _panel_gaps(car: Car, lines: Outline, pen: Pen) -> None:
    """Draw the edges of the hood, the trunk and the bumpers, and the fuel door."""
    length = car.length_m
    nose, tail = car.axles_m[0] - arch_radius(car), car.axles_m[1] + arch_radius(car)
    head, rear = lines.lamp_top, lines.tail_top
    pen.line("gap", [(nose + 0.03, head - 0.22), (0.28, head - 0.15)])
    pen.line("gap", [(tail - 0.03, rear - 0.28), (length - 0.10, rear - 0.24)])
    pen.disc("gap", (tail + 0.10, rear - 0.05), 0.078)
    pen.disc("paint", (tail + 0.10, rear - 0.05), 0.070)


def _head_lamp(lines: Outline, pen: Pen) -> None:
    top = lines.lamp_top
    pen.fill(
        "gap",
        [
            (-0.1, top - 0.125),
            (0.24, top - 0.105),
            (0.50, top + 0.003),
            (0.3, top + 0.016),
            (-0.1, top + 0.01),
        ],
    )
    pen.fill(
        "head_lamp",
        [(-0.1, top - 0.118), (0.24, top - 0.098), (0.48, top), (0.3, top + 0.010), (-0.1, top)],
    )
    pen.fill(
        "amber",
        [(0.30, top - 0.070), (0.36, top - 0.048), (0.43, top - 0.014), (0.34, top - 0.02)],
    )


def _tail_lamp(car: Car, lines: Outline, pen: Pen) -> None:
    length, top = car.length_m, lines.tail_top
    height = 0.34 if car.style in BOXY_STYLES else 0.19
    pen.fill(
        "gap",
        [
            (length + 0.1, top - height - 0.01),
            (length - 0.2, top - height + 0.02),
            (length - 0.32, top + 0.012),
            (length + 0.1, top + 0.012),
        ],
    )
    pen.fill(
        "tail_lamp",
        [
            (length + 0.1, top - height),
            (length - 0.19, top - height + 0.03),
            (length - 0.30, top),
            (length + 0.1, top),
        ],
    )


def _marker_lamps(car: Car, pen: Pen) -> None:
    length, low = car.length_m, car.clearance_m + 0.24
    pen.box("amber", 0.22, low, 0.34, low + 0.03, 0.01)
    pen.box("tail_lamp", length - 0.32, low, length - 0.2, low + 0.03, 0.01)
