"""Parts fixed to varied cars: roof boxes, spoilers, mud flaps, pipes. Car axes, in meters."""

import numpy as np

from carvana_ray.sample.body import Outline, arch_radius
from carvana_ray.sample.car import Car
from carvana_ray.sample.surfaces import Mesh, join_meshes, superquadric

Floats = np.ndarray


def draw_parts(car: Car, lines: Outline) -> tuple[Mesh | None, Mesh | None]:
    """Return the parts under the sills, and those on the roof and the trunk."""
    if car.extras_seed is None:
        return None, None
    rng = np.random.default_rng(car.extras_seed)
    low, high = _low_parts(car, rng), _high_parts(car, lines, rng)
    return (join_meshes(low) if low else None), (join_meshes(high) if high else None)


def _low_parts(car: Car, rng: np.random.Generator) -> list[Mesh]:
    """Return mud flaps, exhaust pipes, side steps, a hitch and axles."""
    half, tail, sill = car.width_m / 2, -car.length_m / 2, car.clearance_m
    meshes = _axles(car, rng)
    if rng.uniform() < 0.35:
        meshes += _mud_flaps(car, float(rng.uniform(0.03, 0.07)))
    if rng.uniform() < 0.5:
        metal = str(rng.choice(("chrome", "gap", "plastic")))
        for side in (1, -1) if rng.uniform() < 0.5 else (1,):
            at = (tail + 0.07, side * rng.uniform(0.3, 0.75) * half, sill + 0.05)
            meshes.append(superquadric(at, (0.10, 0.032, 0.03), metal, 0.6, 7))
    if rng.uniform() < (0.45 if car.clearance_m > 0.28 else 0.08):
        meshes += _side_steps(car, str(rng.choice(("plastic", "chrome"))))
    if rng.uniform() < 0.12:
        at = (tail - 0.06, 0.0, sill + 0.1)
        meshes.append(superquadric(at, (0.1, 0.04, 0.035), "trim", 0.5, 7))
    return meshes


def _axles(car: Car, rng: np.random.Generator) -> list[Mesh]:
    """Return axles, engine and tank, in the shadow under the car."""
    meshes = []
    for axle in car.axles_m:
        if rng.uniform() < 0.6:
            low = min(car.clearance_m, car.wheel_radius_m) - rng.uniform(0.0, 0.05)
            reach = (rng.uniform(0.08, 0.4), 0.35 * car.width_m, rng.uniform(0.03, 0.07))
            at = (car.length_m / 2 - axle, 0.0, low)
            meshes.append(superquadric(at, reach, "well", 0.6, 7))
    return meshes


def _mud_flaps(car: Car, depth: float) -> list[Mesh]:
    reach = (0.015, 0.11, depth)
    places = [
        (car.length_m / 2 - axle - arch_radius(car) - 0.01, side * (car.width_m / 2 - 0.14))
        for axle in car.axles_m
        for side in (1, -1)
    ]
    up = car.clearance_m + 0.02 - depth
    return [superquadric((x, y, up), reach, "plastic", 0.3, 7) for x, y in places]


def _side_steps(car: Car, material: str) -> list[Mesh]:
    middle = car.length_m / 2 - sum(car.axles_m) / 2
    reach, out = (0.3 * car.length_m, 0.06, 0.035), car.width_m / 2 - 0.01
    up = car.clearance_m
    return [superquadric((middle, side * out, up), reach, material, 0.3, 9) for side in (1, -1)]


def _high_parts(car: Car, lines: Outline, rng: np.random.Generator) -> list[Mesh]:
    """Return a roof box, cross bars or a spoiler. They are painted over the shell."""
    style, length = car.proportions, car.length_m
    first, last = style.roof_front * length + 0.25, style.roof_rear * length - 0.15
    middle, meshes = (first + last) / 2, []
    top = lines.top_at(middle)
    if rng.uniform() < 0.06 and last - first > 1.0:
        reach = (rng.uniform(0.35, 0.5) * (last - first), rng.uniform(0.25, 0.6), 0.17)
        material = str(rng.choice(("paint", "trim", "sticker")))
        box = superquadric((length / 2 - middle, 0.0, top + 0.17), reach, material, 0.45, 11)
        meshes.append(_above(box, top - 0.03))
    if rng.uniform() < 0.10 and last - first > 0.8:
        for behind in (first + 0.15, last - 0.15):
            at = (length / 2 - behind, 0.0, lines.top_at(behind) + 0.05)
            bar = superquadric(at, (0.03, 0.40 * car.width_m, 0.02), "trim", 0.4, 7)
            meshes.append(_above(bar, lines.top_at(behind) + 0.02))
    if rng.uniform() < 0.25 and car.style != "pickup":
        meshes.append(_spoiler(car, lines, rng))
    return meshes


def _spoiler(car: Car, lines: Outline, rng: np.random.Generator) -> Mesh:
    """Return a lip at the end of the roof or of the trunk."""
    on_trunk = car.style in ("sedan", "coupe")
    behind = car.length_m * (0.955 if on_trunk else car.proportions.roof_rear) - 0.02
    top = lines.top_at(behind)
    lift = rng.uniform(0.0, 0.12) if on_trunk else 0.0
    at = (car.length_m / 2 - behind, 0.0, top + lift)
    half = 0.36 * car.width_m
    lip = superquadric(at, (0.12, half, 0.035), str(rng.choice(("paint", "trim"))), 0.4, 7)
    if lift < 0.05:
        return _above(lip, top - 0.02)
    feet = [
        superquadric(
            (at[0], side * 0.7 * half, top + lift / 2), (0.05, 0.03, lift / 2), "paint", 0.4, 7
        )
        for side in (1, -1)
    ]
    return join_meshes([*feet, lip])


def _above(mesh: Mesh, height: float) -> Mesh:
    """Return the mesh with its lower part pressed flat: the roof does not hide it."""
    points = mesh.points.copy()
    points[..., 2] = np.maximum(points[..., 2], height)
    return Mesh(points, mesh.normals, mesh.uv)
