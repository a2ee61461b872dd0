"""The meshes of a car: its shell and what is fixed to it, as loose quads. Car axes, in metres.

Knows no colour but the places on the sheet of `skin`, no room and no view.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample import body as shape
from carvana_ray.sample import materials as skin
from carvana_ray.sample.car import Car

Floats = NDArray[np.float64]
Point = tuple[float, float, float]

TYRE_WIDE_M = 0.215
_TUCKED_M = 0.020  # how far the wheels stand inwards of the body's side


@dataclass(frozen=True)
class Mesh:
    """Loose quads: corners [F, 4, 3], their normals [F, 4, 3] and places on the sheet [F, 4, 2]."""

    points: Floats
    normals: Floats
    uv: Floats


@dataclass(frozen=True)
class CarMeshes:
    """A car in pieces; pairs are left and right, wheels front left, front right, rear left, right.

    `inside` is what one sees through the windows, beside the shell's own inner face.
    """

    shell: Mesh
    wheels: tuple[Mesh, ...]
    well: Mesh
    mirrors: tuple[Mesh, Mesh]
    rails: tuple[Mesh, ...]
    fin: Mesh | None
    interior: Mesh
    mast: tuple[Point, Point] | None


def join_meshes(pieces: list[Mesh]) -> Mesh:
    """Return the pieces as one, in their order."""
    return Mesh(
        np.concatenate([one.points for one in pieces]),
        np.concatenate([one.normals for one in pieces]),
        np.concatenate([one.uv for one in pieces]),
    )


def build_meshes(car: Car) -> CarMeshes:
    """Return the car's meshes."""
    lines = shape.outline(car)
    grid, normals, face = shape.shell_grid(car)
    return CarMeshes(
        shell=_shell(car, grid, normals, face),
        wheels=tuple(_wheel(car, lines, end, side) for end in (0, 1) for side in (1, -1)),
        well=_well(car, lines),
        mirrors=(_mirror(car, lines, 1), _mirror(car, lines, -1)),
        rails=tuple(_rail(car, lines, side) for side in (1, -1)) if car.rails else (),
        fin=_fin(car, lines),
        interior=_inside(car, lines),
        mast=_mast(car, lines),
    )


def _corners(grid: Floats) -> Floats:
    """Return the quads of a grid [S, R, K] as [(S - 1) * (R - 1), 4, K]."""
    ring = [grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]]
    return np.stack(ring, axis=2).reshape(-1, 4, grid.shape[-1])


def _shell(car: Car, grid: Floats, normals: Floats, face: NDArray[np.int64]) -> Mesh:
    points, faces = _corners(grid), face.reshape(-1)
    spots = np.empty((len(points), 4, 2))
    for one in (shape.SIDE, shape.FRONT, shape.REAR):
        spots[faces == one] = skin.project_uv(car, points[faces == one], one)
    return Mesh(points, _corners(normals), spots)


def _ball(middle: Point, radii: Point, material: str, power: float = 0.7, fine: int = 9) -> Mesh:
    """Return a rounded box: a superquadric, the boxier the smaller its power."""
    up = np.linspace(-np.pi / 2, np.pi / 2, fine)[:, None]
    around = np.linspace(0, 2 * np.pi, 2 * fine - 1)[None, :]

    def bent(value: Floats, by: float) -> Floats:
        return np.sign(value) * np.abs(value) ** by

    def form(by: float) -> Floats:
        x = bent(np.cos(up), by) * bent(np.cos(around), by)
        y = bent(np.cos(up), by) * bent(np.sin(around), by)
        return np.stack([x, y, bent(np.sin(up), by) + 0 * around], axis=-1)

    normals = form(2 - power) / np.array(radii)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    quads = _corners(form(power) * radii + middle)
    spots = np.broadcast_to(np.array(skin.plain_uv(material)), (*quads.shape[:2], 2))
    return Mesh(quads, _corners(normals), spots)


def _wheel(car: Car, lines: shape.Outline, end: int, side: int) -> Mesh:
    radius = car.wheel_radius_m
    outer = 0.975 * float(lines.half_width(np.array(car.axles_m[end]))) - _TUCKED_M
    around = np.linspace(0, 2 * np.pi, 33)[None, :] * -side
    # From the hub over the rim and the tyre's wall to the tread's far edge: how far out, how deep.
    far = np.array([0.0, 0.35, 0.66, 0.72, 0.86, 0.96, 1.0, 1.0, 0.97])[:, None]
    deep = np.array([0.03, 0.035, 0.03, 0.006, 0.0, 0.012, 0.04, TYRE_WIDE_M - 0.03, TYRE_WIDE_M])
    out = np.array([0.0, 0.05, 0.1, -0.15, 0.10, 0.6, 0.95, 1.0, 1.0])[:, None]
    sine, cosine = np.sin(around), np.cos(around)
    middle = car.length_m / 2 - car.axles_m[end]
    y = side * (outer - deep)[:, None] + 0 * around
    points = np.stack([middle + radius * far * sine, y, radius * (1 + far * cosine)], axis=-1)
    flat = side * np.sqrt(1 - out**2) + 0 * around
    normals = np.stack([out * sine, flat, out * cosine], axis=-1)
    spots = _corners(skin.wheel_uv(far * sine, far * cosine))
    spots[spots.shape[0] * 5 // 8 :] = skin.plain_uv("tyre")  # the last three of the eight rings
    return Mesh(_corners(points), _corners(normals), spots)


def _well(car: Car, lines: shape.Outline) -> Mesh:
    """Return the dark block between the wheels that one sees in the arches and under the sills."""
    behind = np.linspace(0.10, car.length_m - 0.10, 26)
    wide = np.minimum(0.94 * lines.half_width(behind), lines.half_width(behind) - 0.05)
    low = np.full(26, car.clearance_m + 0.015)
    arch = car.wheel_radius_m + shape.arch_radius(car) + 0.02
    high = np.maximum(np.minimum(lines.waist(behind) - 0.06, arch), low + 0.05)
    wide[[0, -1]] = 0.0
    y = np.stack([wide, wide, -wide, -wide], axis=1)
    z = np.stack([low, high, high, low], axis=1)
    points = np.stack([car.length_m / 2 - behind[:, None] + 0 * y, y, z], axis=-1)
    quads = _corners(points)
    outwards = quads - [0.0, 0.0, (arch + car.clearance_m) / 2]
    normals = outwards / np.linalg.norm(outwards, axis=-1, keepdims=True)
    spots = np.broadcast_to(np.array(skin.plain_uv("well")), (*quads.shape[:2], 2))
    return Mesh(quads, normals, spots)


def _mirror(car: Car, lines: shape.Outline, side: int) -> Mesh:
    at = car.proportions.cowl * car.length_m + 0.42
    waist = lines.waist_at(at)
    x, y = car.length_m / 2 - at, side * (car.width_m / 2 + 0.075)
    large = 1.25 if car.style == "pickup" else 1.0
    cap = "trim" if car.mirrors_black else "paint"
    head = _ball((x, y, waist + 0.085), (0.065, 0.105 * large, 0.07 * large), cap, 0.75)
    glass = _ball(
        (x - 0.055, y, waist + 0.085), (0.02, 0.09 * large, 0.056 * large), "dark_glass", 0.7, 7
    )
    foot = _ball((x + 0.02, y - side * 0.09, waist + 0.02), (0.04, 0.075, 0.03), "trim", 0.8, 7)
    return join_meshes([foot, glass, head])


def _rail(car: Car, lines: shape.Outline, side: int) -> Mesh:
    style, length = car.proportions, car.length_m
    behind = np.linspace(style.roof_front * length + 0.15, style.roof_rear * length - 0.12, 18)
    sections = shape.section_points(lines, behind)
    row = sections[:, shape.FLANK_ROWS + shape.DOME_ROWS - 5]
    lift = 0.045 * np.clip(np.minimum(np.arange(18), np.arange(17, -1, -1)) / 1.5, 0, 1)
    turn = np.linspace(0, 2 * np.pi, 9)
    ring = np.stack([0 * turn, np.cos(turn), np.sin(turn)], axis=-1)
    middle = row * [1, side, 1] + np.stack([0 * lift, 0 * lift, lift], axis=-1)
    points = middle[:, None, :] + 0.019 * ring[None]
    normals = np.broadcast_to(ring, points.shape)
    quads = _corners(points)
    metal = skin.plain_uv("chrome" if car.chrome else "trim")
    return Mesh(quads, _corners(normals), np.broadcast_to(np.array(metal), (*quads.shape[:2], 2)))


def _fin(car: Car, lines: shape.Outline) -> Mesh | None:
    if car.antenna != "fin":
        return None
    at = (car.proportions.roof_rear - 0.055) * car.length_m
    z = lines.top_at(at)
    ball = _ball((car.length_m / 2 - at, 0.0, z), (0.10, 0.022, 0.06), "paint", 1.0, 9)
    # Nothing hides the half below the roof: it is painted last.
    points = ball.points.copy()
    points[..., 2] = np.maximum(points[..., 2], z - 0.008)
    return Mesh(points, ball.normals, ball.uv)


def _mast(car: Car, lines: shape.Outline) -> tuple[Point, Point] | None:
    if car.antenna != "mast":
        return None
    if car.style == "pickup":  # on the wing beside the bonnet
        at, y, lean = car.axles_m[0] + 0.45, -0.40 * car.width_m, 0.05
        z = lines.waist_at(at)
    else:
        at, y, lean = (car.proportions.roof_rear - 0.015) * car.length_m, 0.0, 0.45
        z = lines.top_at(at)
    x, long = car.length_m / 2 - at, car.antenna_m
    return (x, y, z - 0.01), (x - lean * long, y, z + long * (1 - lean**2 / 2))


def _inside(car: Car, lines: shape.Outline) -> Mesh:
    style, length = car.proportions, car.length_m
    front = length / 2 - style.doors[1] * length + 0.12
    waist = lines.waist_at(style.doors[1] * length)
    roof = lines.top_at(style.doors[1] * length)
    head = waist + 0.55 * (roof - waist)
    wheel_x = length / 2 - style.cowl * length - 0.55
    dash = length / 2 - style.cowl * length - 0.15
    pieces = [_ball((dash, 0.0, waist - 0.06), (0.32, 0.70, 0.08), "trim", 0.6)]
    pieces.append(_ball((wheel_x, 0.36, waist + 0.02), (0.035, 0.18, 0.15), "trim", 1.0))
    for y in (0.36, -0.36):
        pieces.append(_ball((front, y, waist - 0.10), (0.09, 0.23, 0.29), "cloth", 0.6))
        pieces.append(_ball((front - 0.05, y, head - 0.02), (0.05, 0.12, 0.085), "cloth", 0.7))
    rear = front - 0.80
    room_behind = length / 2 - style.roof_rear * length < rear - 0.10
    if room_behind and len(style.doors) > 2:
        pieces.append(_ball((rear, 0.0, waist - 0.12), (0.10, 0.62, 0.26), "cloth", 0.5))
        for y in (0.34, -0.34):
            pieces.append(_ball((rear - 0.05, y, waist + 0.19), (0.04, 0.12, 0.07), "cloth", 0.7))
    return join_meshes(pieces)
