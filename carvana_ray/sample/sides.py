"""What is drawn on a car's sides: sills, windows, doors and the lamps' outer ends.

Places are metres behind the nose and above the floor. Knows no view and no light.
"""

from itertools import pairwise

import numpy as np

from carvana_ray.sample import body as shape
from carvana_ray.sample.body import Outline
from carvana_ray.sample.car import Car
from carvana_ray.sample.materials import Pen

_GLASS_SHARE = 0.80  # of the way from the waist to the roof; above is the rail of the roof


def draw(car: Car, lines: Outline, pen: Pen) -> None:
    """Draw a side; both sides show the same drawing."""
    _sills(car, pen)
    _windows(car, lines, pen)
    _doors(car, lines, pen)
    _lamps(car, lines, pen)


def _sills(car: Car, pen: Pen) -> None:
    strip = car.clearance_m + (0.13 if car.cladding else 0.04)
    pen.box("plastic", -0.1, 0.0, car.length_m + 0.1, strip)
    if car.cladding:
        for axle in car.axles_m:
            pen.disc("plastic", (axle, car.wheel_radius_m), shape.arch_radius(car) + 0.05)


def _windows(car: Car, lines: Outline, pen: Pen) -> None:
    style, length = car.proportions, car.length_m
    ends = {"sedan": 0.045, "coupe": 0.065, "pickup": -0.02}
    last = (style.roof_rear + ends.get(car.style, -0.035)) * length
    along = np.linspace(style.cowl * length, last, 90)
    low = lines.waist(along) + 0.025
    tall = lines.top(along) - low
    high = low + np.minimum(_GLASS_SHARE * tall, tall - 0.105)
    seen = high - low > 0.05
    along, low, high = along[seen], low[seen], high[seen]
    # The rear end of the glass leans forwards, as the pillar behind it does.
    high = np.minimum(high, low + np.maximum(last - along, 0) * 2.2 + 0.06)
    rim = 0.016

    def pane(start: float, end: float, material: str, grow: float) -> None:
        inside = (along >= start) & (along <= end)
        if inside.sum() > 3:
            top = zip(along[inside], high[inside] + grow, strict=True)
            bottom = zip(along[inside][::-1], low[inside][::-1] - grow, strict=True)
            pen.fill(material, [*top, *bottom])

    pane(0, length, "chrome" if car.chrome else "trim", 2 * rim)
    pane(0, length, "trim", rim)
    pillars = [gap * length for gap in style.doors[1:]]
    edges = [float(along[0]) + 0.02, *pillars, last + 0.2]
    behind = "dark_glass" if car.privacy else "glass"
    for number, (start, end) in enumerate(pairwise(edges)):
        thick = 0.05 if number else 0.0
        pane(start + thick, min(end - 0.03, last - 0.02), "glass" if number == 0 else behind, 0)


def _doors(car: Car, lines: Outline, pen: Pen) -> None:
    style, length = car.proportions, car.length_m
    sill = car.clearance_m + (0.14 if car.cladding else 0.085)
    arch = car.axles_m[1] - shape.arch_radius(car)
    first, last = style.doors[0] * length, style.doors[-1] * length
    for gap in style.doors:
        at = gap * length
        waist = lines.waist_at(at)
        path = [(at, waist + 0.015), (at + 0.01, (waist + sill) / 2), (at - 0.01, sill)]
        if gap == style.doors[-1] and last > arch - 0.10:
            path = [(at, waist), (at + 0.02, waist - 0.12), (arch - 0.03, sill + 0.30)]
            path.append((arch - 0.10, sill))
        pen.line("gap", path)
    pen.line("gap", [(first, sill), (min(last, arch - 0.10), sill)])
    for gap in style.doors[1:]:
        at = min(gap * length, last) - 0.09
        waist = lines.waist_at(at)
        pen.box("gap", at - 0.19, waist - 0.135, at, waist - 0.098, 0.015)
        pen.box(
            "chrome" if car.chrome else "paint",
            at - 0.20,
            waist - 0.12,
            at + 0.01,
            waist - 0.09,
            0.012,
        )
    # The bonnet's and the boot's edge, and the bumpers'.
    nose, tail = car.axles_m[0] - shape.arch_radius(car), car.axles_m[1] + shape.arch_radius(car)
    lamp, red = lines.lamp_top, lines.tail_top
    pen.line("gap", [(nose + 0.03, lamp - 0.22), (0.28, lamp - 0.15)])
    pen.line("gap", [(tail - 0.03, red - 0.28), (length - 0.10, red - 0.24)])
    pen.disc("gap", (tail + 0.10, red - 0.05), 0.078)
    pen.disc("paint", (tail + 0.10, red - 0.05), 0.070)


def _lamps(car: Car, lines: Outline, pen: Pen) -> None:
    length, lamp, red = car.length_m, lines.lamp_top, lines.tail_top
    pen.fill(
        "gap",
        [
            (-0.1, lamp - 0.125),
            (0.24, lamp - 0.105),
            (0.50, lamp + 0.003),
            (0.3, lamp + 0.016),
            (-0.1, lamp + 0.01),
        ],
    )
    pen.fill(
        "head_lamp",
        [
            (-0.1, lamp - 0.118),
            (0.24, lamp - 0.098),
            (0.48, lamp),
            (0.3, lamp + 0.010),
            (-0.1, lamp),
        ],
    )
    pen.fill(
        "amber",
        [(0.30, lamp - 0.070), (0.36, lamp - 0.048), (0.43, lamp - 0.014), (0.34, lamp - 0.02)],
    )
    deep = 0.34 if car.style in ("pickup", "minivan", "crossover") else 0.19
    pen.fill(
        "gap",
        [
            (length + 0.1, red - deep - 0.01),
            (length - 0.2, red - deep + 0.02),
            (length - 0.32, red + 0.012),
            (length + 0.1, red + 0.012),
        ],
    )
    pen.fill(
        "tail_lamp",
        [
            (length + 0.1, red - deep),
            (length - 0.19, red - deep + 0.03),
            (length - 0.30, red),
            (length + 0.1, red),
        ],
    )
    low = car.clearance_m + 0.24
    pen.box("amber", 0.22, low, 0.34, low + 0.03, 0.01)
    pen.box("tail_lamp", length - 0.32, low, length - 0.2, low + 0.03, 0.01)
