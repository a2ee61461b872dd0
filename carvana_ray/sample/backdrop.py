"""The empty studio: a white wall with lettering, floor, turntable, shadow and reflection.

Levels are gray values 0..255 as stored in the image. Smooth parts are drawn at a quarter of the
size.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample import camera, floors, lettering, walls
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car, Studio
from carvana_ray.sample.meshes import CarMeshes
from carvana_ray.sample.rooms import circle, to_image, wall_foot
from carvana_ray.sample.shadows import (
    COARSE_SCALE,
    COARSE_SIZE,
    Floats,
    Pixels,
    draw_reflection,
    draw_shadow,
    project_floor,
    to_fraction,
)
from carvana_ray.sample.variety import Dice


def draw_backdrop(car: Car, meshes: CarMeshes, view: int, dice: Dice) -> Image.Image:
    """Return the studio with the shadow and the reflection of a car, but without the car.

    RGB, 1918 x 1280. `dice` holds the generators of the kinds of variety that are on.
    """
    studio = car.studio
    x = np.linspace(0, WIDTH, 33)
    foot: Pixels = list(zip(x.tolist(), wall_foot(studio, x).tolist(), strict=True))
    wall = _wall_with_lettering(studio, dice)
    floor = _floor(car, meshes, view, dice)
    mask = Image.new("L", wall.size, 0)
    ImageDraw.Draw(mask).polygon([*foot, (WIDTH, HEIGHT), (0, HEIGHT)], fill=255)
    if studio.foot_blur_px:
        mask = _blurred(mask, studio.foot_blur_px)
    upper = Image.composite(floor.crop((0, 0, *wall.size)), wall, mask)
    floor.paste(upper.filter(ImageFilter.BoxBlur(0.7)), (0, 0))
    return floor


def _wall_with_lettering(studio: Studio, dice: Dice) -> Image.Image:
    """Return the upper part of the image, to below the wall's foot."""
    foot = wall_foot(studio, np.linspace(0, WIDTH, 33))
    height = int(np.clip(foot.max() + 18 + 2 * studio.foot_blur_px, 60, HEIGHT))
    if "walls" in dice:
        wall = walls.draw_wall(studio, height, dice["walls"])
    elif "camera" in dice:
        wall = _wall(studio, height)
    else:
        wall = _wall(studio, int(studio.horizon + studio.foot_px + 40))
    if "lettering" in dice:
        lettering.draw_signs(studio, wall, dice["lettering"])
    else:
        lettering.draw_word(studio, ImageDraw.Draw(wall))
    return wall


def _blurred(image: Image.Image, radius_px: float) -> Image.Image:
    """Return the image blurred at an eighth of the size."""
    small = image.reduce(8).filter(ImageFilter.GaussianBlur(radius_px / 8))
    return small.resize(image.size, Image.Resampling.BILINEAR)


def _wall(studio: Studio, height: int) -> Image.Image:
    """Return the studio's wall without lettering."""
    x = np.linspace(-1, 1, 120, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    panels = np.sin(6.0 * x + 2.5 * y + np.float32(studio.panel_phase))
    level = studio.wall_level + 14 * y**3 + studio.brightness_slope * x
    level = level - 7 * (1 - y) * x**2 + 1.6 * panels * (1 - y)
    tint = np.array([0.0, -0.4, 0.6 - 0.5 * studio.warmth], dtype=np.float32)
    wall = to_image(level[..., None] + tint).resize((WIDTH, height), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(wall)
    left, right = studio.center_x - 285, studio.center_x + 210
    top = studio.horizon - 205
    frame = [(left, height), (left, top), (right, top), (right, height)]
    pen.line(frame, fill=(196, 196, 198), width=2)
    return wall


def _floor(car: Car, meshes: CarMeshes, view: int, dice: Dice) -> Image.Image:
    """Return the floor over the whole image; the wall covers its upper part later."""
    studio = car.studio
    reflectance, reflection = draw_reflection(car, meshes, view)
    light = 1 - draw_shadow(car, meshes, view)
    if "floors" in dice:
        floor = floors.draw_floor(studio, dice["floors"])
        return floors.shaded(floor, reflectance, reflection, light)
    y = np.linspace(0, 1, COARSE_SIZE[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, COARSE_SIZE[0], dtype=np.float32)[None, :]
    middle = (y - 0.62) / 0.38
    level = studio.floor_level + 9 * middle - 6 * x**2 * (y > 0) + studio.brightness_slope * x
    level = level + _stains(studio)
    tint = np.array([-3.0, 0.5, 3.0], dtype=np.float32)
    warm = np.array([2.0 + studio.warmth, 0.0, -3.0 - studio.warmth], dtype=np.float32)
    color = level[..., None] + tint + _turntable(studio)[..., None] * warm
    color += (reflection - color) * reflectance[..., None]
    color *= light[..., None]
    floor = to_image(color).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    _draw_seams(car, view, ImageDraw.Draw(floor))
    return floor


def _stains(studio: Studio) -> Floats:
    """Return the unevenness of the floor, constant within a session, [320, 480]."""
    rng = np.random.default_rng(studio.stain_seed)
    total = np.zeros((COARSE_SIZE[1], COARSE_SIZE[0]), dtype=np.float32)
    for cells, strength in ((9, 2.2), (40, 1.0), (160, 0.7)):
        noise = rng.standard_normal((2 * cells, cells), dtype=np.float32) * np.float32(strength)
        octave = Image.fromarray(noise).resize(COARSE_SIZE, Image.Resampling.BICUBIC)
        total += np.asarray(octave)
    return total


def _turntable(studio: Studio) -> Floats:
    """Return the coverage of the turntable, [320, 480], 0..1."""
    image = Image.new("L", COARSE_SIZE, 0)
    edge = project_floor(studio, circle(studio.turntable_m), COARSE_SCALE)
    ImageDraw.Draw(image).polygon(edge, fill=255)
    return to_fraction(image.filter(ImageFilter.GaussianBlur(1.5)))


def _draw_seams(car: Car, view: int, pen: ImageDraw.ImageDraw) -> None:
    """Draw the edge of the turntable, and its seams, which rotate with it."""
    studio = car.studio
    shade = int(studio.floor_level)
    edge = project_floor(studio, circle(studio.turntable_m), 1.0)
    pen.line([*edge, edge[0]], fill=(shade - 48, shade - 48, shade - 50), width=3)
    for across in (-1.15, 1.15):
        half = float(np.sqrt(studio.turntable_m**2 - across**2))
        ends = np.array([[-half, across, 0.0], [half, across, 0.0]])
        world = camera.to_world(ends, view, 0.0)[:, :2].astype(np.float64)
        seam = project_floor(studio, world, 1.0)
        pen.line(seam, fill=(shade - 30, shade - 31, shade - 35), width=2)
