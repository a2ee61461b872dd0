"""A cut-out with its own alpha, cropped to the car: what a run is for, at the top of its page."""

import numpy as np
from PIL import Image

from carvana_ray import rle
from carvana_ray.cutouts.framing import car_box
from carvana_ray.report import overlays
from carvana_ray.report.overlays import Figure, Layer

WIDTH = 600  # pixels of a figure, at most
SEEN = 16  # alpha of a shadow that is seen
CROP_ROOM = 0.05  # around the car, as a fraction of its size


def cutout_figure(
    name: str, photo: Image.Image, cutout: Image.Image, shadow: bool = False
) -> Figure:
    """Return the figure of a cut-out as `cutouts.compositing` makes it, cropped to the car.

    Args:
        name: of the image.
        photo: the image, RGB, upright.
        cutout: RGBA of the same size.
        shadow: whether alpha holds a shadow too. The figure shows it, and has no outline.
    """
    mask = np.asarray(cutout.getchannel("A")) >= (SEEN if shadow else 128)
    box = crop_box(car_box(*rle.mask_to_runs(mask), photo.width), *photo.size)
    width = min(WIDTH, box[2] - box[0])
    size = width, max(1, round(width * (box[3] - box[1]) / (box[2] - box[0])))
    photo, cutout = (image.resize(size, Image.Resampling.BOX, box) for image in (photo, cutout))
    pixels, alpha = np.asarray(photo), np.asarray(cutout.getchannel("A"))
    cut = overlays.make_layer(
        "cut", "Cut-out", f"{name}, the car cut out", overlays.encode_photo(np.asarray(cutout))
    )
    layers: list[Layer] = [{**cut, "real": True}]
    if not shadow:
        alt = f"{name} with the outline of its mask"
        outline = overlays.outline_layer(alpha >= 128, *alpha.shape)
        layers.append(overlays.make_layer("outline", "Outline", alt, outline))
    return overlays.make_figure(name, pixels, layers, {})


def crop_box(
    car: tuple[int, int, int, int] | None, width: int, height: int
) -> tuple[int, int, int, int]:
    """Return the part of an image that shows the car with some room, 3:2 where the image allows.

    Args:
        car: left, top, right, bottom of the car; None: the whole image.
        width, height: of the image.
    """
    left, top, right, bottom = car or (0, 0, width, height)
    wide = (right - left) * (1 + 2 * CROP_ROOM)
    wide = round(min(max(wide, (bottom - top) * (1 + 2 * CROP_ROOM) * 1.5), width))
    high = round(min(max(wide / 1.5, bottom - top), height))
    x = min(max((left + right - wide) // 2, 0), width - wide)
    y = min(max((top + bottom - high) // 2, 0), height - high)
    return x, y, x + wide, y + high
