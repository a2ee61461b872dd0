"""The shell of a car: smooth cross-sections, lofted along its length. Car axes, in meters.

A cross-section runs from the sill up the flank to the waist (the belt line), and from there as a
leaning superellipse to the middle of the roof or hood. `behind` is a distance behind the nose.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.car import Car

Floats = NDArray[np.float64]

FLANK_ROWS = 11  # points of a section from the sill to the waist, both included
DOME_ROWS = 15  # points of a section from above the waist to the middle
_CORNER = 7  # row of the dome where the side ends and the roof, windows and hood begin
# Half width of the flank as a fraction of the widest, by height from the sill (0) to the waist (1):
# an inset sill, a hollow door, a crease below the waist.
_FLANK_HEIGHT = (0.0, 0.08, 0.20, 0.42, 0.60, 0.76, 0.84, 0.93, 1.0)
_FLANK_WIDTH = (0.900, 0.944, 0.968, 0.971, 0.980, 1.0, 0.993, 0.968, 0.945)

SIDE, FRONT, REAR = 0, 1, 2  # drawings of the texture atlas


@dataclass(frozen=True)
class Outline:
    """The side view and the plan view of a car, as functions of the distance behind the nose.

    Attributes:
        car: the car.
        behind, heights: points of the roof line, [N].
    """

    car: Car
    behind: Floats
    heights: Floats

    def top(self, behind: Floats) -> Floats:
        """Return the height of the roof line."""
        return np.interp(behind, self.behind, self.heights)

    def waist(self, behind: Floats) -> Floats:
        """Return the height of the waist: below the windows, next to hood and trunk."""
        car, style = self.car, self.car.proportions
        line = np.interp(behind, [0.0, car.length_m], style.belt) * car.height_m
        return np.minimum(line, self.top(behind) - 0.075)

    def top_at(self, behind_m: float) -> float:
        """Return `top` at one distance."""
        return float(self.top(np.array(behind_m)))

    def waist_at(self, behind_m: float) -> float:
        """Return `waist` at one distance."""
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
        """Return half the width of the widest part of the section."""
        car, style = self.car, self.car.proportions
        front = _closing(behind / style.round_front, 2.4)
        rear = _closing((car.length_m - behind) / style.round_rear, 3.0)
        waist = 1.0 - 0.035 * np.clip(1 - behind / (0.35 * car.length_m), 0, 1)
        return car.width_m / 2 * front * rear * waist

    def bottom(self, behind: Floats) -> Floats:
        """Return the height of the lower edge of the flank: sill, bumpers and wheel arches."""
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
    """Return the radius of the wheel arches in meters."""
    return car.wheel_radius_m * (1.20 if car.style == "pickup" else 1.13) + 0.012


def outline(car: Car) -> Outline:
    """Return the car's outline, with corners rounded over about 10 cm."""
    style = car.proportions
    behind = np.linspace(0, car.length_m, 480)
    position, height = np.array(style.top).T
    heights = np.interp(behind, position * car.length_m, height * car.height_m)
    step = behind[1]
    # Odd reflection keeps the nose and the tail: rounding them would shorten the bumpers.
    for reach in (0.13, 0.09):
        half = int(reach / step)
        kernel = np.hanning(2 * half + 3)[1:-1]
        padded = np.pad(heights, half, mode="reflect", reflect_type="odd")
        heights = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return Outline(car, behind, heights)


def _closing(fraction: Floats, power: float) -> Floats:
    """Return a quarter of a superellipse: 0 at fraction 0, 1 from fraction 1."""
    rest = np.clip(1 - fraction, 0, 1)
    return (1 - rest**power) ** (1 / power)


def stations(car: Car) -> Floats:
    """Return the positions of the cross-sections, [S], denser where the shell bends."""
    length, style = car.length_m, car.proportions
    front = style.round_front * np.linspace(0, 1, 14) ** 2.2
    rear = length - style.round_rear * np.linspace(0, 1, 13) ** 2.2
    arch = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 15)) * arch_radius(car)
    arches = [axle + edge for axle in car.axles_m for edge in (*arch, *(arch[[0, -1]] * 1.004))]
    tail = np.linspace(style.roof_rear, 0.995, 14) * length
    rest = np.linspace(style.round_front, length - style.round_rear, 30)
    positions = np.sort(np.concatenate([front, rear, arches, tail, rest]))
    positions = np.clip(positions, 0, length)
    keep = np.concatenate([[True], np.diff(positions) > 1.0e-3])
    keep[-1] = True  # the last section closes the tail
    return np.asarray(positions[keep])


def section_points(lines: Outline, behind: Floats) -> Floats:
    """Return the left halves of the cross-sections, [S, FLANK_ROWS + DOME_ROWS, 3]."""
    car, style = lines.car, lines.car.proportions
    low, waist, top = lines.bottom(behind), lines.waist(behind), lines.top(behind)
    half = lines.half_width(behind)[:, None]
    # Measured from the sill, not from the arch, so that the crease is straight over the wheels.
    sill = np.minimum(car.clearance_m, low)[:, None]
    z_flank = low[:, None] + (waist - low)[:, None] * np.linspace(0, 1, FLANK_ROWS)
    level = (z_flank - sill) / (waist[:, None] - sill)
    y_flank = half * _flank_width(level)
    angle = np.linspace(0, np.pi / 2, DOME_ROWS + 1)[1:]
    height = (top - waist)[:, None]
    cabin = _smoothstep((height - 0.12) / 0.35)
    power = 2.7 + 1.9 * cabin
    if car.style == "pickup":  # the bed has vertical walls
        power = np.where((behind > style.glass_end * car.length_m)[:, None], 7.0, power)
    rise = np.sin(angle) ** (2 / power)
    # Windows are inside the flank and lean inward toward the roof.
    lean = 1 - style.lean * rise * np.clip(height / (0.30 * car.height_m), 0, 1)
    y_dome = half * 0.945 * np.maximum(np.cos(angle), 0) ** (2 / power) * lean
    z_dome = waist[:, None] + height * rise
    y = np.concatenate([y_flank, y_dome], axis=1)
    z = np.concatenate([z_flank, z_dome], axis=1)
    x = car.length_m / 2 - behind[:, None] + _set_back(car, behind[:, None], z)
    return np.stack([x + 0 * z, y, z], axis=-1)


def _flank_width(level: Floats) -> Floats:
    """Return the smoothed half width of the flank as a fraction of the widest, by height 0..1."""
    table = np.linspace(0, 1, 101)
    rough = np.pad(np.interp(table, _FLANK_HEIGHT, _FLANK_WIDTH), 4, "reflect", reflect_type="odd")
    kernel = np.hanning(11)[1:-1]
    return np.interp(level, table, np.convolve(rough, kernel / kernel.sum(), mode="valid"))


def _set_back(car: Car, behind: Floats, z: Floats) -> Floats:
    """Return the offset in x of nose and tail behind their bumpers at height z."""
    near_nose = np.clip(1 - behind / 0.45, 0, 1)
    near_tail = np.clip(1 - (car.length_m - behind) / 0.40, 0, 1)
    bumper = car.clearance_m + 0.16 * car.height_m
    away = (z - bumper) / (0.2 * car.height_m)
    bent = np.where(away > 0, 0.045 * away**2, 0.07 * away**2)
    return -near_nose * np.minimum(bent, 0.15) + near_tail * np.minimum(0.6 * bent, 0.11)


def _smoothstep(value: Floats) -> Floats:
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def shell_grid(car: Car) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the shell as a grid of S sections and R rows.

    Returns:
        points: [S, R, 3], sections from nose to tail, rows from the left sill over the roof to the
            right sill.
        normals: outward normals of length 1, [S, R, 3].
        drawings: SIDE, FRONT or REAR, the drawing of the atlas on each face, [S - 1, R - 1].
    """
    lines = outline(car)
    behind = stations(car)
    left = section_points(lines, behind)
    right = left[:, -2::-1] * [1, -1, 1]
    points = np.concatenate([left, right], axis=1)
    along, across = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = np.cross(along, across)
    # The first and the last section are degenerate: take the normals of their neighbors.
    normals[0], normals[-1] = normals[1], normals[-2]
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    half = lines.half_width(behind)
    middle = (behind[1:] + behind[:-1]) / 2
    steep = np.abs(np.diff(half)) > np.diff(behind)
    ends = np.where(middle < car.length_m / 2, FRONT, REAR)
    roof_middle = (car.proportions.roof_front + car.proportions.roof_rear) / 2 * car.length_m
    top = np.where(middle < roof_middle, FRONT, REAR)
    rows = np.arange(points.shape[1] - 1)
    rows = np.minimum(rows, points.shape[1] - 2 - rows)
    upper = rows >= FLANK_ROWS + _CORNER
    drawings = np.where(steep[:, None], ends[:, None], SIDE)
    drawings = np.where(upper[None, :], top[:, None], drawings)
    return points, normals, drawings
