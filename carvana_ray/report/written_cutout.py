"""The file of a cut-out as a figure of the page, and as a tile of a contact sheet.

A file is RGBA, RGB before another background, or L if it is alpha alone. In a frame it is another
picture than the photo, which is then shown as a whole, between white bars if need be.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.errors import BadImageError
from carvana_ray.report import overlays
from carvana_ray.report.contact_sheet import Tile, load_upright
from carvana_ray.report.cutout_figure import WIDTH, cutout_figure
from carvana_ray.report.overlays import Caption, Figure, Layer

SQUARE = 8  # pixels of the checkerboard


def open_cutout(name: str, data: bytes) -> Image.Image:
    """Return the file of a cut-out in mode RGBA, RGB or L.

    Raises:
        BadImageError: it cannot be read.
    """
    try:
        file = Image.open(io.BytesIO(data))
        return file.convert({"1": "L", "L": "L", "RGB": "RGB"}.get(file.mode, "RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImageError(f"cut-out of {name}: {error}") from error


def alpha_of(file: Image.Image) -> NDArray[np.uint8] | None:
    """Return alpha, uint8 [H, W]; None before another background."""
    if file.mode == "RGB":
        return None
    return np.asarray(file.getchannel("A") if file.mode == "RGBA" else file)


def written_figure(
    name: str, photo: bytes, file: Image.Image, caption: Caption, style: CutoutStyle
) -> Figure:
    """Return the figure of a cut-out: cropped to the car if its file has alpha and no frame.

    Args:
        name, photo: name and bytes of the image file.
        file: the cut-out.
        caption: sentences and reasons of the figure.
        style: how the cut-out was made.

    Raises:
        BadImageError: the image cannot be read, or has another size though there is no frame.
    """
    image = Image.fromarray(load_upright(photo))
    if style.frame:
        file = _shrink(file, WIDTH)
        image = ImageOps.pad(image, file.size, Image.Resampling.BOX, "white")
    elif image.size != file.size:
        raise BadImageError(f"{name}: {image.size} pixels, its cut-out has {file.size}")
    elif file.mode == "RGBA":
        figure = cutout_figure(name, image, file, shadow=style.shadow != "none")
        return {**figure, **caption}
    else:
        image, file = (_shrink(one, overlays.UNSCORED_WIDTH) for one in (image, file))
    key, label, alt = "cut", "Cut-out", f"{name}, the car cut out"
    if file.mode == "L":
        key, label, alt = "mask", "Mask", f"The mask of {name}"
    real = file.mode == "RGBA"
    source = overlays.encode_photo(np.asarray(file if real else file.convert("RGB")))
    layer = overlays.make_layer(key, label, alt, source)
    layers: list[Layer] = [{**layer, "real": True} if real else layer]
    return overlays.make_figure(name, np.asarray(image), layers, caption)


def written_tiles(name: str, photo: bytes, file: Image.Image, width: int) -> tuple[Tile, Tile]:
    """Return an image with its name as caption, and its cut-out over a checkerboard.

    Args:
        name, photo: name and bytes of the image file.
        file: the cut-out.
        width: of both tiles.

    Raises:
        BadImageError: the image cannot be read.
    """
    small = _shrink(file, width)
    if small.mode == "RGBA":
        small = Image.alpha_composite(_checkerboard(*small.size), small)
    return (name, load_upright(photo, small.width)), ("", np.asarray(small.convert("RGB")))


def _shrink(image: Image.Image, width: int) -> Image.Image:
    """Return an image of at most this width."""
    width = min(width, image.width)
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.BOX)


def _checkerboard(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width] // SQUARE
    board = np.where((rows + columns) % 2, 235, 205).astype(np.uint8)
    return Image.fromarray(board).convert("RGBA")
