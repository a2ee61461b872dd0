"""The empty studio: a white wall with lettering, floor, turntable, shadow and reflection.

Levels are gray values 0..255 as stored in the image. Smooth parts are drawn at a quarter of the
size.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample import camera
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car, Studio
from carvana_ray.sample.meshes import CarMeshes

Floats = NDArray[np.float32]
Pixels = list[tuple[float, float]]

_COARSE_SIZE = (480, 320)
_COARSE_SCALE = HEIGHT / _COARSE_SIZE[1]
_TURNTABLE_M = 3.2  # radius; the turntable is 1930 px wide in the real images
_WALL_FOOT_PX = 57.0  # distance of the wall's foot below the horizon
_LETTER_PX = 240.0

# Strokes of each letter in a unit box, y upward. The word is made up; the real one is a trademark.
_WORD = "AUTOLANE"
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 0), (0.5, 1), (1, 0)), ((0.8, 0.25), (0.55, 0.25))),
    "U": (((0, 1), (0, 0.3), (0.12, 0.08), (0.35, 0), (0.65, 0), (0.88, 0.08), (1, 0.3), (1, 1)),),
    "T": (((0, 1), (1, 1)), ((0.5, 1), (0.5, 0))),
    "O": (tuple((0.5 + 0.5 * math.sin(k / 6), 0.5 - 0.5 * math.cos(k / 6)) for k in range(39)),),
    "L": (((0, 1), (0, 0), (0.9, 0)),),
    "N": (((0, 0), (0, 1), (1, 0), (1, 1)),),
    "E": (((0.9, 1), (0, 1), (0, 0), (0.9, 0)), ((0, 0.5), (0.8, 0.5))),
}  # fmt: skip


def draw_backdrop(car: Car, meshes: CarMeshes, view: int) -> Image.Image:
    """Return the studio with the shadow and the reflection of a car, but without the car.

    RGB, 1918 x 1280.
    """
    studio = car.studio
    wall = _wall(studio)
    floor = _floor(car, meshes, view)
    x = np.linspace(0, WIDTH, 33)
    foot: Pixels = list(zip(x.tolist(), _wall_foot(studio, x).tolist(), strict=True))
    mask = Image.new("L", wall.size, 0)
    ImageDraw.Draw(mask).polygon([*foot, (WIDTH, HEIGHT), (0, HEIGHT)], fill=255)
    upper = Image.composite(floor.crop((0, 0, *wall.size)), wall, mask)
    floor.paste(upper.filter(ImageFilter.BoxBlur(0.7)), (0, 0))
    return floor


def _wall_foot(studio: Studio, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the row of the wall's foot in each column: the wall curves around the turntable."""
    return studio.horizon + _WALL_FOOT_PX + 22 * ((x - studio.center_x) / (WIDTH / 2)) ** 2


def _wall(studio: Studio) -> Image.Image:
    """Return the upper part of the image, to below the wall's foot."""
    height = int(studio.horizon + _WALL_FOOT_PX + 40)
    x = np.linspace(-1, 1, 120, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    panels = np.sin(6.0 * x + 2.5 * y + np.float32(studio.panel_phase))
    level = studio.wall_level + 14 * y**3 + studio.brightness_slope * x
    level = level - 7 * (1 - y) * x**2 + 1.6 * panels * (1 - y)
    tint = np.array([0.0, -0.4, 0.6 - 0.5 * studio.warmth], dtype=np.float32)
    wall = _to_image(level[..., None] + tint).resize((WIDTH, height), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(wall)
    left, right = studio.center_x - 285, studio.center_x + 210
    top = studio.horizon - 205
    frame = [(left, height), (left, top), (right, top), (right, height)]
    pen.line(frame, fill=(196, 196, 198), width=2)
    _lettering(studio, pen)
    return wall


def _lettering(studio: Studio, pen: ImageDraw.ImageDraw) -> None:
    ink = tuple(int(studio.wall_level * 0.46) + shift for shift in (0, -2, 2))
    pitch = (WIDTH - 70) / len(_WORD)
    for number, letter in enumerate(_WORD):
        left = studio.center_x - WIDTH / 2 + 45 + number * pitch
        width = 24 if number < len(_WORD) / 2 else 50
        for stroke in _STROKES[letter]:
            letter_width = 0.86 * pitch - width
            x = np.array([left + width / 2 + across * letter_width for across, _ in stroke])
            # The outer letters are closer to the camera.
            height = _LETTER_PX * (1 + 0.06 * ((x - studio.center_x) / (WIDTH / 2)) ** 2)
            up = np.array([up for _, up in stroke])
            y = _wall_foot(studio, x) - 4 - width / 2 - up * (height - width)
            points = list(zip(x.tolist(), y.tolist(), strict=True))
            pen.line(points, fill=ink, width=width, joint="curve")


def _floor(car: Car, meshes: CarMeshes, view: int) -> Image.Image:
    """Return the floor over the whole image; the wall covers its upper part later."""
    studio = car.studio
    y = np.linspace(0, 1, _COARSE_SIZE[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, _COARSE_SIZE[0], dtype=np.float32)[None, :]
    middle = (y - 0.62) / 0.38
    level = studio.floor_level + 9 * middle - 6 * x**2 * (y > 0) + studio.brightness_slope * x
    level = level + _stains(studio)
    tint = np.array([-3.0, 0.5, 3.0], dtype=np.float32)
    warm = np.array([2.0 + studio.warmth, 0.0, -3.0 - studio.warmth], dtype=np.float32)
    color = level[..., None] + tint + _turntable(studio)[..., None] * warm
    reflectance, reflection = _reflection(car, meshes, view)
    color += (reflection - color) * reflectance[..., None]
    color *= (1 - _shadow(car, view))[..., None]
    floor = _to_image(color).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    _draw_seams(car, view, ImageDraw.Draw(floor))
    return floor


def _stains(studio: Studio) -> Floats:
    """Return the unevenness of the floor, constant within a session, [320, 480]."""
    rng = np.random.default_rng(studio.stain_seed)
    total = np.zeros((_COARSE_SIZE[1], _COARSE_SIZE[0]), dtype=np.float32)
    for cells, strength in ((9, 2.2), (40, 1.0), (160, 0.7)):
        noise = rng.standard_normal((2 * cells, cells), dtype=np.float32) * np.float32(strength)
        octave = Image.fromarray(noise).resize(_COARSE_SIZE, Image.Resampling.BICUBIC)
        total += np.asarray(octave)
    return total


def _project_floor(studio: Studio, points: NDArray[np.float64], scale: float) -> Pixels:
    """Return the pixels of floor points [N, 2] in world axes, divided by `scale`."""
    on_floor = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    pixels, _ = camera.project(on_floor.astype(np.float32), studio)
    return [(float(x), float(y)) for x, y in pixels / np.float32(scale)]


def _circle(radius: float) -> NDArray[np.float64]:
    """Return 120 points of a circle, [120, 2]."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _turntable(studio: Studio) -> Floats:
    """Return the coverage of the turntable, [320, 480], 0..1."""
    image = Image.new("L", _COARSE_SIZE, 0)
    edge = _project_floor(studio, _circle(_TURNTABLE_M), _COARSE_SCALE)
    ImageDraw.Draw(image).polygon(edge, fill=255)
    return _to_fraction(image.filter(ImageFilter.GaussianBlur(1.5)))


def _draw_seams(car: Car, view: int, pen: ImageDraw.ImageDraw) -> None:
    """Draw the edge of the turntable, and its seams, which rotate with it."""
    studio = car.studio
    shade = int(studio.floor_level)
    edge = _project_floor(studio, _circle(_TURNTABLE_M), 1.0)
    pen.line([*edge, edge[0]], fill=(shade - 48, shade - 48, shade - 50), width=3)
    for across in (-1.15, 1.15):
        half = float(np.sqrt(_TURNTABLE_M**2 - across**2))
        ends = np.array([[-half, across, 0.0], [half, across, 0.0]])
        world = camera.to_world(ends, view, 0.0)[:, :2].astype(np.float64)
        seam = _project_floor(studio, world, 1.0)
        pen.line(seam, fill=(shade - 30, shade - 31, shade - 35), width=2)


def _shadow(car: Car, view: int) -> Floats:
    """Return the fraction of light that the car takes from the floor, [320, 480], 0..1."""
    image = Image.new("L", _COARSE_SIZE, 0)
    pen = ImageDraw.Draw(image)
    half_length, half_width = car.length_m / 2 - 0.08, car.width_m / 2
    # More light reaches the floor under higher sills.
    strength = 1.0 - 0.5 * (car.clearance_m - 0.2)
    steps = ((0.85, 12), (0.62, 24), (0.42, 38), (0.27, 56), (0.14, 84), (0.03, 128), (-0.09, 160))
    for margin, darkness in steps:
        patch = _shadow_patch(car, view, (0, 0), (half_length + margin, half_width + margin))
        pen.polygon(patch, fill=int(darkness * strength))
    image = image.filter(ImageFilter.GaussianBlur(3.2))
    pen = ImageDraw.Draw(image)
    for axle in (0, 1):
        for side in (1, -1):
            center = (car.length_m / 2 - car.axles_m[axle], side * (car.width_m / 2 - 0.16))
            pen.polygon(_shadow_patch(car, view, center, (0.13, 0.09)), fill=190)
    return _to_fraction(image.filter(ImageFilter.GaussianBlur(1.6)))


def _shadow_patch(
    car: Car, view: int, center: tuple[float, float], half_size: tuple[float, float]
) -> Pixels:
    """Return the outline of a rounded rectangle on the floor, given in car axes."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    unit = [np.sign(f) * np.abs(f) ** 0.45 for f in (np.cos(angle), np.sin(angle))]
    corners = [m + h * u for m, h, u in zip(center, half_size, unit, strict=True)]
    points = np.concatenate([np.stack(corners, axis=-1), np.zeros((48, 1))], axis=1)
    world = camera.car_to_world(points, car, view)[:, :2].astype(np.float64)
    return _project_floor(car.studio, world, _COARSE_SCALE)


def _reflection(car: Car, meshes: CarMeshes, view: int) -> tuple[Floats, Floats]:
    """Return the floor's reflectance [320, 480] and its blurred reflection [320, 480, 3]."""
    image = Image.new("RGB", _COARSE_SIZE, (0, 0, 0))
    mask = Image.new("L", _COARSE_SIZE, 0)
    image_pen, mask_pen = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    red, green, blue = (int(225 * min(channel, 1.0) ** 0.5) for channel in car.paint)
    faces = [(wheel.points[::5], (26, 26, 27)) for wheel in meshes.wheels]
    low = meshes.shell.points[:, 0, 2] < car.height_m * 0.42
    faces.append((meshes.shell.points[low][::2], (red, green, blue)))
    for points, color in faces:
        mirrored = camera.car_to_world(points * [1, 1, -1], car, view)
        pixels, _ = camera.project(mirrored, car.studio)
        for polygon in (pixels / np.float32(_COARSE_SCALE)).reshape(-1, 8).tolist():
            image_pen.polygon(polygon, fill=color)
            mask_pen.polygon(polygon, fill=255)
    blur = ImageFilter.GaussianBlur(3.5)
    coverage = _to_fraction(mask.filter(blur))
    blurred = np.asarray(image.filter(blur), dtype=np.float32)
    reflection = blurred / np.maximum(coverage, 1e-2)[..., None]
    return coverage * np.float32(0.07), reflection.astype(np.float32)


def _to_fraction(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _to_image(levels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(levels, 0, 254).astype(np.uint8))
