"""Geometry that walls, floors and objects of a room share."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from carvana_ray.sample.camera import WIDTH
from carvana_ray.sample.car import Studio
from carvana_ray.sample.shadows import Floats


def wall_foot(studio: Studio, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the row of the wall's foot in each column: the wall may curve around the turntable."""
    across = (x - studio.center_x) / (WIDTH / 2)
    foot = studio.horizon + studio.foot_px + studio.foot_curve_px * across**2
    return foot + studio.foot_slope_px * across


def circle(radius: float) -> NDArray[np.float64]:
    """Return 120 points of a circle, [120, 2]."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def to_image(levels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(levels, 0, 254).astype(np.uint8))


def gray(level: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return a slightly colored gray of a level, limited to 0..254."""
    tint = rng.normal(0, 3, 3)
    red, green, blue = (int(value) for value in np.clip(level + tint, 0, 254))
    return red, green, blue


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Floats:
    """Return smooth noise of deviation 1 with a number of cells per column, float32 `shape`."""
    rows = max(int(cells * shape[0] / shape[1]) + 2, 2)
    coarse = rng.standard_normal((rows, cells + 2), dtype=np.float32)
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def grain(image: Image.Image, rng: np.random.Generator, deviation: float) -> Image.Image:
    """Return the image with the grain of plaster, concrete or carpet, equal in all channels."""
    cell = int(rng.choice((1, 2, 4, 8)))
    width, height = image.width // cell + 1, image.height // cell + 1
    tile = rng.normal(128, deviation, (128, 512)).clip(0, 255).astype(np.uint8)
    tiles = np.tile(tile, (height // 128 + 1, width // 512 + 1))[:height, :width]
    layer = Image.fromarray(np.ascontiguousarray(tiles))
    if cell > 1:
        layer = layer.resize((width * cell, height * cell), Image.Resampling.BILINEAR)
    layer = layer.crop((0, 0, image.width, image.height))
    return ImageChops.add(image, Image.merge("RGB", (layer, layer, layer)), 1, -128)


def fraction_image(fraction: Floats) -> Image.Image:
    """Return fractions 0..1 as an image of mode L."""
    return Image.fromarray(np.clip(fraction * 255 + 0.5, 0, 255).astype(np.uint8))
