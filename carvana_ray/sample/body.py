"""The shell of a car: smooth cross-sections lofted along its length. Car axes, in metres.

A cross-section runs from the sill up the flank to the waist, and from there as a leaning
superellipse to the middle of the roof or the bonnet. Knows no colour, no room and no view.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.car import Car

Floats = NDArray[np.float64]

FLANK_ROWS = 11  # points from the sill to the waist, both counted
DOME_ROWS = 15  # points above the waist to the middle
_CORNER = 7  # of the dome's rows, where the side ends and roof, screens and bonnet begin
# The flank from the sill to the waist: a tucked-in sill, a hollow door, a crease below the waist.
_FLANK_AT = (0.0, 0.08, 0.20, 0.42, 0.60, 0.76, 0.84, 0.93, 1.0)
_FLANK_IS = (0.900, 0.944, 0.968, 0.971, 0.980, 1.0, 0.993, 0.968, 0.945)

SIDE, FRONT, REAR = 0, 1, 2


@dataclass(frozen=True)
class Outline:
    """A car's side and plan view, as functions of the metres behind the nose."""

    car: Car
    behind: Floats
    heights: Floats

    def top(self, behind: Floats) -> Floats:
        """Height of the car's outline."""
        return np.interp(behind, self.behind, self.heights)

    def waist(self, behind: Floats) -> Floats:
        """Height of the edge where the flank ends: below windows, beside bonnet and boot."""
        car, style = self.car, self.car.proportions
        line = np.interp(behind, [0.0, car.length_m], style.belt) * car.height_m
        return np.minimum(line, self.top(behind) - 0.075)

    def top_at(self, behind_m: float) -> float:
        """Return `top` in one place."""
        return float(self.top(np.array(behind_m)))

    def waist_at(self, behind_m: float) -> float:
        """Return `waist` in one place."""
        return float(self.waist(np.array(behind_m)))

    @property
    def lamp_top(self) -> float:
        """Height of the upper edge of the head lamps."""
        return self.waist_at(0.30) * self.car.lamp_height + 0.01

    @property
    def tail_top(self) -> float:
        """Height of the upper edge of the tail lamps."""
        return self.waist_at(self.car.length_m - 0.30) + 0.01

    def half_width(self, behind: Floats) -> Floats:
        """Half the width at the widest height."""
        car, style = self.car, self.car.proportions
        front = _closing(behind / style.round_front, 2.4)
        rear = _closing((car.length_m - behind) / style.round_rear, 3.0)
        waist = 1.0 - 0.035 * np.clip(1 - behind / (0.35 * car.length_m), 0, 1)
        return car.width_m / 2 * front * rear * waist

    def bottom(self, behind: Floats) -> Floats:
        """Height of the lower edge of the flank: sill, bumpers and the two wheel arches."""
        car = self.car
        nose = np.clip(1 - behind / 0.5, 0, 1) * 0.05
        tail = np.clip(1 - (car.length_m - behind) / 0.8, 0, 1) * 0.08
        edge = car.clearance_m + nose + tail
        reach = arch_radius(car)
        for axle in car.axles_m:
            inside = np.maximum(reach**2 - (behind - axle) ** 2, 0.0)
            arch = car.wheel_radius_m + np.sqrt(inside)
            edge = np.where(inside > 0, np.maximum(edge, arch), edge)
        return np.minimum(edge, self.waist(behind) - 0.06)


def arch_radius(car: Car) -> float:
    """Return the radius of the wheel arches in metres."""
    return car.wheel_radius_m * (1.20 if car.style == "pickup" else 1.13) + 0.012


def outline(car: Car) -> Outline:
    """Return the car's outline, its corners rounded over about a hand's breadth."""
    style = car.proportions
    behind = np.linspace(0, car.length_m, 480)
    at, height = np.array(style.top).T
    sharp = np.interp(behind, at * car.length_m, height * car.height_m)
    step = behind[1]
    # The nose and the tail stay as they are: rounding them would shorten the bumpers.
    for reach in (0.13, 0.09):
        half = int(reach / step)
        kernel = np.hanning(2 * half + 3)[1:-1]
        padded = np.pad(sharp, half, mode="reflect", reflect_type="odd")
        sharp = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return Outline(car, behind, sharp)


def _closing(fraction: Floats, power: float) -> Floats:
    """Return a superellipse's quarter: 0 at 0 and 1 from 1 on."""
    rest = np.clip(1 - fraction, 0, 1)
    return (1 - rest**power) ** (1 / power)


def stations(car: Car) -> Floats:
    """Return where the cross-sections stand, [S] metres behind the nose, denser where it bends."""
    length, style = car.length_m, car.proportions
    front = style.round_front * np.linspace(0, 1, 14) ** 2.2
    rear = length - style.round_rear * np.linspace(0, 1, 13) ** 2.2
    arch = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 15)) * arch_radius(car)
    arches = [axle + edge for axle in car.axles_m for edge in (*arch, *(arch[[0, -1]] * 1.004))]
    tail = np.linspace(style.roof_rear, 0.995, 14) * length
    rest = np.linspace(style.round_front, length - style.round_rear, 30)
    every = np.sort(np.concatenate([front, rear, arches, tail, rest]))
    every = np.clip(every, 0, length)
    keep = np.concatenate([[True], np.diff(every) > 1.0e-3])
    keep[-1] = True  # the last section closes the tail
    return np.asarray(every[keep])


def section_points(shape: Outline, behind: Floats) -> Floats:
    """Return the left halves of the cross-sections, [S, FLANK_ROWS + DOME_ROWS, 3]."""
    car, style = shape.car, shape.car.proportions
    low, waist, top = shape.bottom(behind), shape.waist(behind), shape.top(behind)
    wide = shape.half_width(behind)[:, None]
    # Measured from the sill, not from the arch: the crease runs straight over the wheels.
    sill = np.minimum(car.clearance_m, low)[:, None]
    share = np.linspace(0, 1, FLANK_ROWS)
    z_flank = low[:, None] + (waist - low)[:, None] * share
    level = (z_flank - sill) / (waist[:, None] - sill)
    y_flank = wide * _smooth_flank(level)
    angle = np.linspace(0, np.pi / 2, DOME_ROWS + 1)[1:]
    high = (top - waist)[:, None]
    cabin = _step((high - 0.12) / 0.35)
    power = 2.7 + 1.9 * cabin
    if car.style == "pickup":  # the bed has upright walls up to its edge
        power = np.where((behind > style.glass_end * car.length_m)[:, None], 7.0, power)
    rise = np.sin(angle) ** (2 / power)
    # The window stands inwards of the flank and leans further in towards the roof.
    lean = 1 - style.lean * rise * np.clip(high / (0.30 * car.height_m), 0, 1)
    y_dome = wide * 0.945 * np.maximum(np.cos(angle), 0) ** (2 / power) * lean
    z_dome = waist[:, None] + high * rise
    y = np.concatenate([y_flank, y_dome], axis=1)
    z = np.concatenate([z_flank, z_dome], axis=1)
    x = car.length_m / 2 - behind[:, None] + _set_back(car, behind[:, None], z)
    return np.stack([x + 0 * z, y, z], axis=-1)


def _smooth_flank(level: Floats) -> Floats:
    """Return the flank's width as a share of the widest, with the corners of its table rounded."""
    table = np.linspace(0, 1, 101)
    rough = np.pad(np.interp(table, _FLANK_AT, _FLANK_IS), 4, "reflect", reflect_type="odd")
    kernel = np.hanning(11)[1:-1]
    return np.interp(level, table, np.convolve(rough, kernel / kernel.sum(), mode="valid"))


def _set_back(car: Car, behind: Floats, z: Floats) -> Floats:
    """Return how far, in +x, nose and tail stand back from their bumpers at height z."""
    near_nose = np.clip(1 - behind / 0.45, 0, 1)
    near_tail = np.clip(1 - (car.length_m - behind) / 0.40, 0, 1)
    bumper = car.clearance_m + 0.16 * car.height_m
    away = (z - bumper) / (0.2 * car.height_m)
    bent = np.where(away > 0, 0.045 * away**2, 0.07 * away**2)
    return -near_nose * np.minimum(bent, 0.15) + near_tail * np.minimum(0.6 * bent, 0.11)


def _step(value: Floats) -> Floats:
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def shell_grid(car: Car) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the shell as a grid.

    Returns:
        points [S, R, 3]: stations nose to tail; rows from the left sill over the roof to the right.
        normals [S, R, 3]: of length 1, outwards.
        face [S - 1, R - 1]: SIDE, FRONT or REAR, the drawing of `skin` that the quad shows.
    """
    shape = outline(car)
    behind = stations(car)
    left = section_points(shape, behind)
    right = left[:, -2::-1] * [1, -1, 1]
    points = np.concatenate([left, right], axis=1)
    along, across = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = np.cross(along, across)
    # At the very ends and along the sharp sill the sections fold up; the next rows know better.
    normals[0], normals[-1] = normals[1], normals[-2]
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    wide = shape.half_width(behind)
    middle = (behind[1:] + behind[:-1]) / 2
    steep = np.abs(np.diff(wide)) > np.diff(behind)
    ends = np.where(middle < car.length_m / 2, FRONT, REAR)
    roof_middle = (car.proportions.roof_front + car.proportions.roof_rear) / 2 * car.length_m
    top = np.where(middle < roof_middle, FRONT, REAR)
    rows = np.arange(points.shape[1] - 1)
    rows = np.minimum(rows, points.shape[1] - 2 - rows)
    upper = rows >= FLANK_ROWS + _CORNER
    face = np.where(steep[:, None], ends[:, None], SIDE)
    face = np.where(upper[None, :], top[:, None], face)
    return points, normals, face
