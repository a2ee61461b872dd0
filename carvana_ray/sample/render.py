"""A photograph: puts a car before the studio and spoils the picture like a camera does.

The mask comes from the very coverage that the picture is put together with.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from carvana_ray.sample import backdrop, camera, raster
from carvana_ray.sample import meshes as parts
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car
from carvana_ray.sample.raster import Box
from carvana_ray.sample.scene import bounding_box, build_scene, paint_order
from carvana_ray.sample.shading import shade

_NOISE = 2.6  # standard deviation of the sensor's noise, in gray values


def photograph(
    car: Car, view: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a picture of the car, and where the car is in it.

    Args:
        car: what `draw_car` returned.
        view: 1..16: 1 shows the nose, 5 the left side, 9 the tail, 13 the right side.
        rng: for what differs between two pictures of one view: the sensor's noise.

    Returns:
        image: uint8 [1280, 1918, 3], RGB.
        mask: bool [1280, 1918]: the car with its windows, mirrors, wheels and antenna; neither
            shadow nor reflection.
    """
    if not 1 <= view <= camera.VIEWS:
        raise ValueError(f"view {view}: expected 1 to {camera.VIEWS}")
    body = parts.build_meshes(car)
    scene = build_scene(car, body, view)
    empty = backdrop.draw_backdrop(car, body, view)
    box = bounding_box(scene)
    left, top, right, bottom = box
    numbers = raster.rasterize(scene.pixels, paint_order(scene, view), box)
    behind = np.asarray(empty.crop(box))
    colours = shade(car, scene, numbers, behind, box)
    crop = Image.fromarray(colours)
    antenna = _antenna(car, body, view, box)
    crop.paste((24, 24, 25), (0, 0), antenna)
    # A lens and the sensor's colour filter blur by a pixel: this smooths all edges alike.
    soft = ImageFilter.Kernel((3, 3), (1, 3, 1, 3, 9, 3, 1, 3, 1))
    empty.paste(crop.filter(soft), (left, top))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top:bottom, left:right] = (numbers > 0) | (np.asarray(antenna) >= 128)
    return _exposed(empty, rng), mask


def _antenna(car: Car, body: parts.CarMeshes, view: int, box: Box) -> Image.Image:
    """Return the coverage by the antenna in the box, L: drawn four times finer than the picture."""
    left, top, right, bottom = box
    image = Image.new("L", (right - left, bottom - top), 0)
    if body.mast is None:
        return image
    pixels, _ = camera.project(camera.car_to_world(np.array(body.mast), car, view), car.studio)
    (x, y), (x2, y2) = (pixels - np.array([left, top], dtype=np.float32)).tolist()
    corner = (int(min(x, x2)) - 6, int(min(y, y2)) - 6)
    size = (int(abs(x - x2)) + 13, int(abs(y - y2)) + 13)
    fine = Image.new("L", (4 * size[0], 4 * size[1]), 0)
    spots = [4 * (a - b) for a, b in zip((x, y, x2, y2), corner * 2, strict=True)]
    ax, ay, bx, by = spots
    # 12 mm at the foot and 5 at the tip; upright enough for its width to be its horizontal one.
    ImageDraw.Draw(fine).polygon([ax - 6, ay, ax + 6, ay, bx + 3, by, bx - 3, by], fill=255)
    image.paste(fine.reduce(4), corner)
    return image


def _exposed(picture: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture with a sensor's noise."""
    # A normal distribution in 256 steps, looked up by random bytes: a tenth of exact noise's cost.
    steps = np.sort(rng.standard_normal(256 * 64, dtype=np.float32)).reshape(256, 64).mean(axis=1)
    levels = np.clip(np.rint(steps * _NOISE) + 128, 0, 255).astype(np.uint8)
    grain = np.frombuffer(rng.bytes(WIDTH * HEIGHT), dtype=np.uint8)
    layer = Image.fromarray(levels.take(grain).reshape(HEIGHT, WIDTH))
    noise = Image.merge("RGB", (layer, layer, layer))
    return np.asarray(ImageChops.add(picture, noise, 1, -128)).copy()
