"""What a car does to the floor: its soft and hard shadow, and its reflection.

All at a quarter of the size, 480 x 320.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample import camera
from carvana_ray.sample.camera import HEIGHT
from carvana_ray.sample.car import Car, Studio
from carvana_ray.sample.meshes import CarMeshes

Floats = NDArray[np.float32]
Pixels = list[tuple[float, float]]

COARSE_SIZE = (480, 320)
COARSE_SCALE = HEIGHT / COARSE_SIZE[1]


def project_floor(studio: Studio, points: NDArray[np.float64], scale: float) -> Pixels:
    """Return the pixels of floor points [N, 2] in world axes, divided by `scale`."""
    on_floor = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    pixels, _ = camera.project(on_floor.astype(np.float32), studio)
    return [(float(x), float(y)) for x, y in pixels / np.float32(scale)]


def draw_shadow(car: Car, meshes: CarMeshes, view: int) -> Floats:
    """Return the fraction of light that the car takes from the floor, [320, 480], 0..1."""
    image = Image.new("L", COARSE_SIZE, 0)
    pen = ImageDraw.Draw(image)
    half_length, half_width = car.length_m / 2 - 0.08, car.width_m / 2
    # More light reaches the floor under higher sills.
    strength = (1.0 - 0.5 * (car.clearance_m - 0.2)) * car.studio.light.shadow
    steps = ((0.85, 12), (0.62, 24), (0.42, 38), (0.27, 56), (0.14, 84), (0.03, 128), (-0.09, 160))
    for margin, darkness in steps:
        patch = _shadow_patch(car, view, (0, 0), (half_length + margin, half_width + margin))
        pen.polygon(patch, fill=min(int(darkness * strength), 250))
    for margin, part in ((0.06, 0.65), (-0.05, 0.88), (-0.2, 1.0)):
        if car.studio.light.under:
            patch = _shadow_patch(car, view, (0, 0), (half_length + margin, half_width + margin))
            pen.polygon(patch, fill=int(255 * part * car.studio.light.under))
    image = image.filter(ImageFilter.GaussianBlur(3.2))
    pen = ImageDraw.Draw(image)
    for axle in (0, 1):
        for side in (1, -1):
            center = (car.length_m / 2 - car.axles_m[axle], side * (car.width_m / 2 - 0.16))
            spot = _shadow_patch(car, view, center, (0.13, 0.09))
            pen.polygon(spot, fill=min(int(190 * car.studio.light.contact), 250))
    soft = to_fraction(image.filter(ImageFilter.GaussianBlur(1.6)))
    if car.studio.light.cast is None:
        return soft
    return 1 - (1 - soft) * (1 - _cast_shadow(car, meshes, view))


def _cast_shadow(car: Car, meshes: CarMeshes, view: int) -> Floats:
    """Return the fraction of light that the car takes from the floor by a lamp's hard shadow."""
    light = car.studio.light
    image = Image.new("L", COARSE_SIZE, 0)
    pen = ImageDraw.Draw(image)
    for mesh in (meshes.shell, *meshes.wheels):
        points = camera.car_to_world(mesh.points[::3], car, view)
        flat = points[..., :2] + points[..., 2:] * np.array(light.cast, dtype=np.float32)
        floor = np.concatenate([flat, np.zeros_like(flat[..., :1])], axis=-1)
        pixels, depth = camera.project(floor, car.studio)
        seen = pixels[depth.min(axis=1) > 0.5]
        for polygon in (seen / np.float32(COARSE_SCALE)).reshape(-1, 8).tolist():
            pen.polygon(polygon, fill=255)
    # Every third face alone leaves gaps.
    closed = image.filter(ImageFilter.MaxFilter(7)).filter(ImageFilter.MinFilter(7))
    blurred = to_fraction(closed.filter(ImageFilter.GaussianBlur(light.cast_blur_px)))
    return blurred * np.float32(light.cast_shade)


def _shadow_patch(
    car: Car, view: int, center: tuple[float, float], half_size: tuple[float, float]
) -> Pixels:
    """Return the outline of a rounded rectangle on the floor, given in car axes."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    unit = [np.sign(f) * np.abs(f) ** 0.45 for f in (np.cos(angle), np.sin(angle))]
    corners = [m + h * u for m, h, u in zip(center, half_size, unit, strict=True)]
    points = np.concatenate([np.stack(corners, axis=-1), np.zeros((48, 1))], axis=1)
    world = camera.car_to_world(points, car, view)[:, :2].astype(np.float64)
    return project_floor(car.studio, world, COARSE_SCALE)


def draw_reflection(car: Car, meshes: CarMeshes, view: int) -> tuple[Floats, Floats]:
    """Return the floor's reflectance [320, 480] and its blurred reflection [320, 480, 3]."""
    image = Image.new("RGB", COARSE_SIZE, (0, 0, 0))
    mask = Image.new("L", COARSE_SIZE, 0)
    image_pen, mask_pen = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    red, green, blue = (int(225 * min(channel, 1.0) ** 0.5) for channel in car.paint)
    faces = [(wheel.points[::5], (26, 26, 27)) for wheel in meshes.wheels]
    low = meshes.shell.points[:, 0, 2] < car.height_m * 0.42
    faces.append((meshes.shell.points[low][::2], (red, green, blue)))
    for points, color in faces:
        mirrored = camera.car_to_world(points * [1, 1, -1], car, view)
        pixels, _ = camera.project(mirrored, car.studio)
        for polygon in (pixels / np.float32(COARSE_SCALE)).reshape(-1, 8).tolist():
            image_pen.polygon(polygon, fill=color)
            mask_pen.polygon(polygon, fill=255)
    blur = ImageFilter.GaussianBlur(3.5)
    coverage = to_fraction(mask.filter(blur))
    blurred = np.asarray(image.filter(blur), dtype=np.float32)
    reflection = blurred / np.maximum(coverage, 1e-2)[..., None]
    return coverage * np.float32(car.studio.gloss), reflection.astype(np.float32)


def to_fraction(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32) / np.float32(255)
