"""An image of a car in the studio, degraded like a camera does, with its exact mask.

The mask and the image are made from the same coverage.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from carvana_ray.sample import backdrop, camera, cars, clutter, film, pictures, raster
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car
from carvana_ray.sample.meshes import CarMeshes, build_meshes
from carvana_ray.sample.raster import Box
from carvana_ray.sample.rooms import fraction_image
from carvana_ray.sample.scene import bounding_box, build_scene, paint_order
from carvana_ray.sample.shading import shade
from carvana_ray.sample.shadows import draw_shadow
from carvana_ray.sample.variety import Dice

_PICTURES = 0.4  # fraction of the others that show a picture instead of a room
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
    car, dice = cars.pose(car, view, rng)
    meshes = build_meshes(car)
    scene = build_scene(car, meshes, view)
    image, picture = _background(car, meshes, view, dice)
    box = bounding_box(scene)
    left, top, right, bottom = box
    order = paint_order(scene, _camera_in_car_axes(car, view))
    face_ids = raster.rasterize(scene.pixels, order, box)
    crop = Image.fromarray(shade(car, scene, face_ids, np.asarray(image.crop(box)), box))
    antenna = _antenna(car, meshes, view, box)
    crop.paste((24, 24, 25), (0, 0), antenna)
    # The lens and the color filter of the sensor blur by about a pixel, which also smooths edges.
    blur = ImageFilter.Kernel((3, 3), (1, 3, 1, 3, 9, 3, 1, 3, 1))
    image.paste(crop.filter(blur), (left, top))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top:bottom, left:right] = (face_ids > 0) | (np.asarray(antenna) >= 128)
    if picture:
        image = _pasted(image, picture, mask, dice["backdrops"])
    return _develop(image, dice, rng, car.studio.calm), mask


def _background(
    car: Car, meshes: CarMeshes, view: int, dice: Dice
) -> tuple[Image.Image, Image.Image | None]:
    """Return what is behind the car, and the picture that replaces it afterwards, if any."""
    picture = None
    if "backdrops" in dice and dice["backdrops"].uniform() < _PICTURES and not car.studio.calm:
        picture = pictures.draw_picture(dice["backdrops"])
        if dice["backdrops"].uniform() < 0.5:  # the car stands before the picture
            light = fraction_image(1 - draw_shadow(car, meshes, view))
            shade = light.resize(picture.size, Image.Resampling.BICUBIC)
            shaded = ImageChops.multiply(picture, Image.merge("RGB", (shade, shade, shade)))
            return shaded, None
    room = backdrop.draw_backdrop(car, meshes, view, dice)
    if "clutter" in dice:
        clutter.draw_clutter(car.studio, room, dice["clutter"])
    if "sharpness" in dice:
        room = film.blur_background(room, dice["sharpness"], car.studio.calm)
    return room, picture


def _pasted(
    image: Image.Image, picture: Image.Image, mask: NDArray[np.bool_], rng: np.random.Generator
) -> Image.Image:
    """Return the picture with the car cut out of an image, with a hard or a soft edge."""
    alpha = Image.fromarray(mask.astype(np.uint8) * 255)
    softness = float(rng.choice((0.0, rng.uniform(0.5, 2.5))))
    if softness:
        alpha = alpha.filter(ImageFilter.BoxBlur(softness))
    return Image.composite(image, picture, alpha)


def _develop(
    image: Image.Image, dice: Dice, rng: np.random.Generator, calm: bool
) -> NDArray[np.uint8]:
    """Return what the camera makes of the image."""
    if "sharpness" in dice:
        image = film.blur_image(image, dice["sharpness"])
    if "color" in dice:
        image = film.grade(image, dice["color"], 0.5 if calm else 1.0)
    if "noise" not in dice:
        return np.asarray(film.add_noise(image, _NOISE, rng)).copy()
    own = dice["noise"]
    often = 0.93 if calm else 0.7
    deviation = float(own.uniform(0, 4) if own.uniform() < often else own.uniform(4, 16))
    noisy = film.add_noise(image, deviation, rng)
    return np.asarray(film.compress(noisy, own)).copy()


def _camera_in_car_axes(car: Car, view: int) -> raster.Floats:
    return camera.to_car(camera.camera_position(car.studio), car, view)


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
