"""The front and rear of a car's texture: windows, lamps, grille, bumpers and plates.

Coordinates are (to the right, up) in meters, from the car's center line and the floor.
"""

import numpy as np

from carvana_ray.sample.body import Outline
from carvana_ray.sample.car import Car
from carvana_ray.sample.materials import Pen

BOXY_STYLES = ("pickup", "minivan", "crossover")  # with a steep tail and tall tail lamps


def draw_front(car: Car, lines: Outline, pen: Pen) -> None:
    """Draw the texture of the front, up to the middle of the roof."""
    _windscreen(car, lines, pen)
    _bumper(car, pen)
    for side in (-1, 1):
        _head_lamp(car, lines, pen, side)
    _grille(car, lines, pen)
    _plate(pen, car.clearance_m + 0.19)


def draw_rear(car: Car, lines: Outline, pen: Pen) -> None:
    """Draw the texture of the rear, from the middle of the roof."""
    _rear_window(car, lines, pen)
    _tail(car, lines, pen)


def _trapezoid(
    pen: Pen, material: str, low: float, high: float, half_low: float, half_high: float
) -> None:
    """Fill a symmetric trapezoid between two heights, given half its width at both."""
    pen.fill(material, [(-half_low, low), (half_low, low), (half_high, high), (-half_high, high)])


def _windscreen(car: Car, lines: Outline, pen: Pen) -> None:
    style, half = car.proportions, car.width_m / 2
    low = lines.top_at(style.cowl * car.length_m) + 0.005
    high = lines.top_at(style.roof_front * car.length_m) - 0.012
    _trapezoid(pen, "trim", low - 0.02, high, 0.69 * half, 0.60 * half)
    _trapezoid(pen, "glass", low + 0.035, high - 0.025, 0.66 * half, 0.575 * half)
    pen.box("trim", -0.07, high - 0.09, 0.07, high)
    pen.box("cloth", -0.12, high - 0.13, 0.12, high - 0.08, 0.02)
    for start, end in ((-0.55, 0.05), (0.0, 0.58)):
        pen.line("gap", [(start * half, low + 0.02), (end * half, low + 0.06)], 0.014)


def _bumper(car: Car, pen: Pen) -> None:
    half, low = car.width_m / 2, car.clearance_m
    pen.box("plastic", -half, 0.0, half, low + 0.075)
    _trapezoid(pen, "grille", low + 0.085, low + 0.20, 0.62 * half, 0.56 * half)


def _head_lamp(car: Car, lines: Outline, pen: Pen, side: int) -> None:
    """Draw the lamps of one side: -1 left, 1 right."""
    half, lamp, low = car.width_m / 2, lines.lamp_top, car.clearance_m
    pen.fill(
        "gap",
        [
            (side * 0.46 * half, lamp - 0.03),
            (side * 0.53 * half, lamp - 0.115),
            (side * half, lamp - 0.13),
            (side * half, lamp + 0.02),
        ],
    )
    pen.fill(
        "head_lamp",
        [
            (side * 0.475 * half, lamp - 0.035),
            (side * 0.535 * half, lamp - 0.108),
            (side * half, lamp - 0.122),
            (side * half, lamp + 0.013),
        ],
    )
    pen.disc("rim_shade", (side * 0.66 * half, lamp - 0.068), 0.040, 0.85)
    pen.disc("head_lamp", (side * 0.66 * half, lamp - 0.068), 0.024)
    pen.disc("white_lamp", (side * 0.81 * half, lamp - 0.062), 0.028)
    pen.disc("grille", (side * 0.74 * half, low + 0.165), 0.075, 0.8)
    pen.disc("white_lamp", (side * 0.74 * half, low + 0.165), 0.034)
    pen.line(
        "gap",
        [(side * 0.5 * half, lamp - 0.14), (side * 0.42 * half, lamp - 0.20), (0, lamp - 0.21)],
    )


def _grille(car: Car, lines: Outline, pen: Pen) -> None:
    half, lamp = car.width_m / 2, lines.lamp_top
    height = (0.15, 0.22, 0.10)[car.grille] * (1.5 if car.style == "pickup" else 1.0)
    width = (0.40, 0.34, 0.44)[car.grille] * half
    base = lamp - 0.02 - height
    metal = "chrome" if car.chrome else "trim"
    _trapezoid(pen, metal, base - 0.02, lamp, 0.9 * width + 0.02, width + 0.02)
    _trapezoid(pen, "grille", base, lamp - 0.02, 0.9 * width, width)
    for bar in np.linspace(base, lamp - 0.02, 5 if car.grille != 1 else 7)[1:-1]:
        pen.line(metal, [(-0.92 * width, float(bar)), (0.92 * width, float(bar))], 0.012)
    pen.disc("chrome", (0, base + height / 2 + 0.01), 0.045)
    pen.disc("trim", (0, base + height / 2 + 0.01), 0.036)


def _plate(pen: Pen, low: float) -> None:
    pen.box("trim", -0.165, low - 0.01, 0.165, low + 0.17, 0.01)
    pen.box("plate", -0.155, low, 0.155, low + 0.16, 0.01)
    pen.box("plate_print", -0.155, low, 0.155, low + 0.024)
    pen.disc("plate_print", (-0.09, low + 0.09), 0.026)
    pen.box("rim_shade", -0.03, low + 0.085, 0.11, low + 0.105)


def _rear_window(car: Car, lines: Outline, pen: Pen) -> None:
    style, half = car.proportions, car.width_m / 2
    low = lines.top_at(style.glass_end * car.length_m) + 0.02
    high = lines.top_at(style.roof_rear * car.length_m) - 0.02
    glass = "dark_glass" if car.privacy else "glass"
    half_low, half_high = (0.70, 0.60) if car.style in ("sedan", "coupe") else (0.74, 0.63)
    if car.style == "pickup":
        pen.box("bed", -0.84 * half, 0.668 * car.height_m, 0.84 * half, 0.712 * car.height_m)
    frame_low, frame_high = (half_low + 0.02) * half, (half_high + 0.02) * half
    _trapezoid(pen, "trim", low - 0.015, high + 0.012, frame_low, frame_high)
    _trapezoid(pen, glass, low + 0.01, high - 0.015, half_low * half, half_high * half)
    pen.box("tail_lamp", -0.13, high + 0.014, 0.13, high + 0.034, 0.005)
    if car.style in ("hatchback", "crossover", "minivan"):
        pen.line("gap", [(0, low), (-0.40 * half, low + 0.05)], 0.016)


def _tail(car: Car, lines: Outline, pen: Pen) -> None:
    half, low = car.width_m / 2, car.clearance_m
    boxy = car.style in BOXY_STYLES
    pen.box("plastic", -half, 0.0, half, low + (0.24 if car.cladding else 0.15))
    for side in (-1, 1):
        _tail_lamp(car, lines, pen, side)
    bumper = low + (0.19 if boxy else 0.20)
    plate = lines.tail_top - 0.34 if boxy else lines.tail_top - 0.22
    metal = "chrome" if car.chrome else "trim"
    if car.style == "pickup":
        material = "chrome" if car.chrome else "plastic"
        pen.box(material, -half, bumper - 0.06, half, bumper + 0.12, 0.02)
        plate = bumper - 0.05
    pen.box("gap", -0.24, plate - 0.03, 0.24, plate + 0.19, 0.03)
    pen.box("paint", -0.225, plate - 0.02, 0.225, plate + 0.178, 0.03)
    pen.box(metal, -0.26, plate + 0.185, 0.26, plate + 0.21, 0.01)
    pen.disc("chrome", (0, plate + 0.25), 0.036)
    pen.disc("trim", (0, plate + 0.25), 0.027)
    _plate(pen, plate)
    pen.disc("chrome", (-0.55 * half, low + 0.10), 0.045, 0.75)
    pen.disc("well", (-0.55 * half, low + 0.10), 0.034, 0.75)


def _tail_lamp(car: Car, lines: Outline, pen: Pen, side: int) -> None:
    """Draw the lamps of one side: -1 left, 1 right."""
    half, top, low = car.width_m / 2, lines.tail_top, car.clearance_m
    height, inner = 0.19, 0.50
    if car.style in BOXY_STYLES:
        height, inner = 0.34, 0.80 if car.style == "pickup" else 0.70
    for material, margin in (("gap", 0.012), ("tail_lamp", 0.0)):
        pen.fill(
            material,
            [
                (side * ((inner + 0.06) * half - margin), top - height - margin),
                (side * half, top - height - margin),
                (side * half, top + 0.01 + margin),
                (side * (inner * half - margin), top - 0.01 + margin),
            ],
        )
    near, far = side * (inner + 0.12) * half, side * 0.95 * half
    pen.box("white_lamp", near, top - 0.50 * height, far, top - 0.40 * height, 0.01)
    pen.line(
        "gap",
        [
            (side * (inner + 0.02) * half, top - height),
            (side * 0.66 * half, low + 0.30),
            (0, low + 0.29),
        ],
    )
    pen.box("tail_lamp", side * 0.62 * half, low + 0.17, side * 0.8 * half, low + 0.20, 0.01)
