"""The meshes of a car: its shell and the parts fixed to it. Car axes, in meters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample.body import (
    DOME_ROWS,
    FLANK_ROWS,
    FRONT,
    REAR,
    SIDE,
    Outline,
    arch_radius,
    outline,
    section_points,
    shell_grid,
)
from carvana_ray.sample.car import Car
from carvana_ray.sample.materials import plain_uv, project_uv, wheel_uv
from carvana_ray.sample.parts import draw_parts
from carvana_ray.sample.surfaces import Mesh, Point, faces, join_meshes, plain, superquadric

Floats = NDArray[np.float64]

_TIRE_WIDTH_M = 0.215
_WHEEL_INSET_M = 0.020  # distance of the wheels from the body's side


@dataclass(frozen=True)
class CarMeshes:
    """The meshes of a car.

    Attributes:
        shell: the body.
        wheels: front left, front right, rear left, rear right.
        well: dark block between the wheels.
        mirrors, rails: left, right.
        fin: fin antenna on the roof, if any.
        interior: dashboard, steering wheel and seats.
        mast: lower and upper end of a mast antenna, if any.
        low, high: parts under the sills and on the roof or the trunk, if any.
    """

    shell: Mesh
    wheels: tuple[Mesh, ...]
    well: Mesh
    mirrors: tuple[Mesh, Mesh]
    rails: tuple[Mesh, ...]
    fin: Mesh | None
    interior: Mesh
    mast: tuple[Point, Point] | None
    low: Mesh | None = None
    high: Mesh | None = None


def build_meshes(car: Car) -> CarMeshes:
    """Return the car's meshes."""
    lines = outline(car)
    grid, normals, drawings = shell_grid(car)
    low, high = draw_parts(car, lines)
    return CarMeshes(
        shell=_shell(car, grid, normals, drawings),
        wheels=tuple(_wheel(car, lines, axle, side) for axle in (0, 1) for side in (1, -1)),
        well=_well(car, lines),
        mirrors=(_mirror(car, lines, 1), _mirror(car, lines, -1)),
        rails=tuple(_rail(car, lines, side) for side in (1, -1)) if car.rails else (),
        fin=_fin(car, lines),
        interior=_interior(car, lines),
        mast=_mast(car, lines),
        low=low,
        high=high,
    )


def _shell(car: Car, grid: Floats, normals: Floats, drawings: NDArray[np.int64]) -> Mesh:
    points, drawing = faces(grid), drawings.reshape(-1)
    uv = np.empty((len(points), 4, 2))
    for number in (SIDE, FRONT, REAR):
        uv[drawing == number] = project_uv(car, points[drawing == number], number)
    return Mesh(points, faces(normals), uv)


def _wheel(car: Car, lines: Outline, axle: int, side: int) -> Mesh:
    """Return a wheel: axle 0 front, 1 rear; side 1 left, -1 right."""
    radius = car.wheel_radius_m
    outer = 0.975 * float(lines.half_width(np.array(car.axles_m[axle]))) - _WHEEL_INSET_M
    angle = np.linspace(0, 2 * np.pi, 33)[None, :] * -side
    # Nine rings from the hub over the rim and the sidewall to the inner edge of the tread: distance
    # from the axle by the radius, depth behind the outer plane, and radial part of the normal.
    ring = np.array([0.0, 0.35, 0.66, 0.72, 0.86, 0.96, 1.0, 1.0, 0.97])[:, None]
    tread = _TIRE_WIDTH_M - 0.03
    depth = np.array([0.03, 0.035, 0.03, 0.006, 0.0, 0.012, 0.04, tread, _TIRE_WIDTH_M])
    radial = np.array([0.0, 0.05, 0.1, -0.15, 0.10, 0.6, 0.95, 1.0, 1.0])[:, None]
    sine, cosine = np.sin(angle), np.cos(angle)
    center = car.length_m / 2 - car.axles_m[axle]
    y = side * (outer - depth)[:, None] + 0 * angle
    points = np.stack([center + radius * ring * sine, y, radius * (1 + ring * cosine)], axis=-1)
    lateral = side * np.sqrt(1 - radial**2) + 0 * angle
    normals = np.stack([radial * sine, lateral, radial * cosine], axis=-1)
    uv = faces(wheel_uv(ring * sine, ring * cosine))
    uv[uv.shape[0] * 5 // 8 :] = plain_uv("tire")  # the last three of eight bands
    wheel = Mesh(faces(points), faces(normals), uv)
    if not car.variety or not (car.variety.bodies or car.variety.camera):
        return wheel
    # Seen from low or from near, the far wheels show their inner sides.
    rim = points[-1]
    hub = np.broadcast_to([center, side * (outer - _TIRE_WIDTH_M), radius], rim.shape)
    disc = faces(np.stack([rim, hub]))
    inward = np.broadcast_to([0.0, -float(side), 0.0], disc.shape)
    return join_meshes([wheel, Mesh(disc, inward, plain(disc, "tire"))])


def _well(car: Car, lines: Outline) -> Mesh:
    """Return the dark block between the wheels, visible in the arches and under the sills."""
    behind = np.linspace(0.10, car.length_m - 0.10, 26)
    half = np.minimum(0.94 * lines.half_width(behind), lines.half_width(behind) - 0.05)
    low = np.full(26, car.clearance_m + 0.015)
    arch = car.wheel_radius_m + arch_radius(car) + 0.02
    high = np.maximum(np.minimum(lines.waist(behind) - 0.06, arch), low + 0.05)
    half[[0, -1]] = 0.0
    y = np.stack([half, half, -half, -half], axis=1)
    z = np.stack([low, high, high, low], axis=1)
    points = faces(np.stack([car.length_m / 2 - behind[:, None] + 0 * y, y, z], axis=-1))
    outward = points - [0.0, 0.0, (arch + car.clearance_m) / 2]
    normals = outward / np.linalg.norm(outward, axis=-1, keepdims=True)
    return Mesh(points, normals, plain(points, "well"))


def _mirror(car: Car, lines: Outline, side: int) -> Mesh:
    behind = car.proportions.cowl * car.length_m + 0.42
    waist = lines.waist_at(behind)
    x, y = car.length_m / 2 - behind, side * (car.width_m / 2 + 0.075)
    size = 1.25 if car.style == "pickup" else 1.0
    cap = "trim" if car.mirrors_black else "paint"
    head = superquadric((x, y, waist + 0.085), (0.065, 0.105 * size, 0.07 * size), cap, 0.75)
    glass = superquadric(
        (x - 0.055, y, waist + 0.085), (0.02, 0.09 * size, 0.056 * size), "dark_glass", 0.7, 7
    )
    foot = superquadric(
        (x + 0.02, y - side * 0.09, waist + 0.02), (0.04, 0.075, 0.03), "trim", 0.8, 7
    )
    return join_meshes([foot, glass, head])


def _rail(car: Car, lines: Outline, side: int) -> Mesh:
    style, length = car.proportions, car.length_m
    behind = np.linspace(style.roof_front * length + 0.15, style.roof_rear * length - 0.12, 18)
    roof = section_points(lines, behind)[:, FLANK_ROWS + DOME_ROWS - 5]
    lift = 0.045 * np.clip(np.minimum(np.arange(18), np.arange(17, -1, -1)) / 1.5, 0, 1)
    angle = np.linspace(0, 2 * np.pi, 9)
    ring = np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=-1)
    center = roof * [1, side, 1] + np.stack([0 * lift, 0 * lift, lift], axis=-1)
    tube = center[:, None, :] + 0.019 * ring[None]
    normals = np.broadcast_to(ring, tube.shape)
    points = faces(tube)
    return Mesh(points, faces(normals), plain(points, "chrome" if car.chrome else "trim"))


def _fin(car: Car, lines: Outline) -> Mesh | None:
    if car.antenna != "fin":
        return None
    behind = (car.proportions.roof_rear - 0.055) * car.length_m
    z = lines.top_at(behind)
    fin = superquadric((car.length_m / 2 - behind, 0.0, z), (0.10, 0.022, 0.06), "paint", 1.0, 9)
    # The fin is painted after the roof, which therefore does not hide its lower half.
    points = fin.points.copy()
    points[..., 2] = np.maximum(points[..., 2], z - 0.008)
    return Mesh(points, fin.normals, fin.uv)


def _mast(car: Car, lines: Outline) -> tuple[Point, Point] | None:
    if car.antenna != "mast":
        return None
    if car.style == "pickup":  # on the fender, next to the hood
        behind, y, lean = car.axles_m[0] + 0.45, -0.40 * car.width_m, 0.05
        z = lines.waist_at(behind)
    else:
        behind, y, lean = (car.proportions.roof_rear - 0.015) * car.length_m, 0.0, 0.45
        z = lines.top_at(behind)
    x, length = car.length_m / 2 - behind, car.antenna_m
    return (x, y, z - 0.01), (x - lean * length, y, z + length * (1 - lean**2 / 2))


def _interior(car: Car, lines: Outline) -> Mesh:
    style, length = car.proportions, car.length_m
    front = length / 2 - style.doors[1] * length + 0.12
    waist = lines.waist_at(style.doors[1] * length)
    roof = lines.top_at(style.doors[1] * length)
    head = waist + 0.55 * (roof - waist)
    wheel = length / 2 - style.cowl * length - 0.55
    dash = length / 2 - style.cowl * length - 0.15
    meshes = [
        superquadric((dash, 0.0, waist - 0.06), (0.32, 0.70, 0.08), "trim", 0.6),
        superquadric((wheel, 0.36, waist + 0.02), (0.035, 0.18, 0.15), "trim", 1.0),
    ]
    for y in (0.36, -0.36):
        seat, headrest = (front, y, waist - 0.10), (front - 0.05, y, head - 0.02)
        meshes.append(superquadric(seat, (0.09, 0.23, 0.29), "cloth", 0.6))
        meshes.append(superquadric(headrest, (0.05, 0.12, 0.085), "cloth", 0.7))
    rear = front - 0.80
    has_space = length / 2 - style.roof_rear * length < rear - 0.10
    if has_space and len(style.doors) > 2:
        meshes.append(superquadric((rear, 0.0, waist - 0.12), (0.10, 0.62, 0.26), "cloth", 0.5))
        for y in (0.34, -0.34):
            headrest = (rear - 0.05, y, waist + 0.19)
            meshes.append(superquadric(headrest, (0.04, 0.12, 0.07), "cloth", 0.7))
    return join_meshes(meshes)
