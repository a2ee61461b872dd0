"""An image of a car in the studio, degraded like a camera does, with its exact mask.

The mask and the image are made from the same coverage.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from carvana_ray.sample import backdrop, camera, raster
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car
from carvana_ray.sample.meshes import CarMeshes, build_meshes
from carvana_ray.sample.raster import Box
from carvana_ray.sample.scene import bounding_box, build_scene, paint_order
from carvana_ray.sample.shading import shade

_NOISE = 2.6  # standard deviation of the sensor noise, in gray values


def photograph(
    car: Car, view: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return an image of a car and its mask.

    Args:
        car: result of `draw_car`.
        view: 1..16. View 1 shows the nose, 5 the left side, 9 the tail, 13 the right side.
        rng: generator of the sensor noise, the only difference between two images of one view.

    Returns:
        image: uint8 [1280, 1918, 3], RGB.
        mask: bool [1280, 1918]. The car includes windows, mirrors, wheels and antenna, but neither
            shadow nor reflection.

    Raises:
        ValueError: the view is not in 1..16.
    """
    if not 1 <= view <= camera.VIEWS:
        raise ValueError(f"view {view}: expected 1 to {camera.VIEWS}")
    meshes = build_meshes(car)
    scene = build_scene(car, meshes, view)
    image = backdrop.draw_backdrop(car, meshes, view)
    box = bounding_box(scene)
    left, top, right, bottom = box
    face_ids = raster.rasterize(scene.pixels, paint_order(scene, view), box)
    crop = Image.fromarray(shade(car, scene, face_ids, np.asarray(image.crop(box)), box))
    antenna = _antenna(car, meshes, view, box)
    crop.paste((24, 24, 25), (0, 0), antenna)
    # The lens and the color filter of the sensor blur by about a pixel, which also smooths edges.
    blur = ImageFilter.Kernel((3, 3), (1, 3, 1, 3, 9, 3, 1, 3, 1))
    image.paste(crop.filter(blur), (left, top))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top:bottom, left:right] = (face_ids > 0) | (np.asarray(antenna) >= 128)
    return _add_noise(image, rng), mask


def _antenna(car: Car, meshes: CarMeshes, view: int, box: Box) -> Image.Image:
    """Return the coverage of the mast antenna in the box, mode L, with 4 x 4 supersampling."""
    left, top, right, bottom = box
    image = Image.new("L", (right - left, bottom - top), 0)
    if meshes.mast is None:
        return image
    mast = camera.car_to_world(np.array(meshes.mast), car, view)
    pixels, _ = camera.project(mast, car.studio)
    (x, y), (x2, y2) = (pixels - np.array([left, top], dtype=np.float32)).tolist()
    corner = (int(min(x, x2)) - 6, int(min(y, y2)) - 6)
    size = (int(abs(x - x2)) + 13, int(abs(y - y2)) + 13)
    fine = Image.new("L", (4 * size[0], 4 * size[1]), 0)
    ax, ay, bx, by = (4 * (a - b) for a, b in zip((x, y, x2, y2), corner * 2, strict=True))
    # 12 mm wide at the foot and 5 mm at the tip, measured horizontally: the mast is nearly upright.
    ImageDraw.Draw(fine).polygon([ax - 6, ay, ax + 6, ay, bx + 3, by, bx - 3, by], fill=255)
    image.paste(fine.reduce(4), corner)
    return image


def _add_noise(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the image with sensor noise."""
    # Random bytes index 256 quantiles of a normal distribution: ten times as fast as exact noise.
    quantiles = np.sort(rng.standard_normal(256 * 64, dtype=np.float32)).reshape(256, 64)
    levels = np.clip(np.rint(quantiles.mean(axis=1) * _NOISE) + 128, 0, 255).astype(np.uint8)
    indices = np.frombuffer(rng.bytes(WIDTH * HEIGHT), dtype=np.uint8)
    layer = Image.fromarray(levels.take(indices).reshape(HEIGHT, WIDTH))
    noise = Image.merge("RGB", (layer, layer, layer))
    return np.asarray(ImageChops.add(image, noise, 1, -128)).copy()
