"""Moves and scales an image and its alpha, exactly to a fraction of a pixel."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

REACH = 2  # pixels to each side that the bicubic filter sees, on the coarser of both grids

Size = tuple[int, int]  # width, height


class Placement(NamedTuple):
    """The point (x, y) of an image is at (scale * x + left, scale * y + top) of the picture."""

    scale: float
    left: float
    top: float
    size: Size


def move(
    image: Image.Image, alpha: NDArray[np.uint8], to: Placement
) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return an image and its alpha where a placement puts them.

    Outside the image alpha is 0. At scale 1, moved by whole pixels, all pixels are as they were.

    Args:
        image: RGB, [H, W].
        alpha: uint8 [H, W], not 0 everywhere.
        to: the placement.

    Returns:
        RGB and uint8, both of the placement's size.
    """
    opacity = Image.fromarray(alpha)
    if to.scale == 1 and to.left == int(to.left) and to.top == int(to.top):
        x, y = -int(to.left), -int(to.top)
        part = x, y, x + to.size[0], y + to.size[1]
        return image.crop(part), np.asarray(opacity.crop(part))  # black outside the image
    return _resample(image, opacity, to)


class _Span(NamedTuple):
    """Pixels of the picture along one axis, and the part of the image that they show.

    Attributes:
        first, last: pixels of the picture, the last exclusive.
        start, end: their edges in the image.
        low, high: pixels of the image that the filter needs; some may be outside the image.
    """

    first: int
    last: int
    start: float
    end: float
    low: int
    high: int


def _span(start: int, end: int, scale: float, offset: float, length: int) -> _Span:
    """Return the span of a picture of some length where pixels [start, end) of the image show."""
    reach = math.ceil(REACH * max(scale, 1))
    first = max(0, math.floor(scale * start + offset) - reach)
    last = min(length, math.ceil(scale * end + offset) + reach)
    edges = (first - offset) / scale, (last - offset) / scale
    reach = math.ceil(REACH * max(1 / scale, 1))
    return _Span(first, last, *edges, math.floor(edges[0]) - reach, math.ceil(edges[1]) + reach)


def _resample(
    image: Image.Image, opacity: Image.Image, to: Placement
) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return a scaled image and its alpha; `opacity` is alpha, mode L.

    Colors are weighted by alpha, so that no color of the background gets into the car's edge.
    The numbers are float32: the filter overshoots at an edge, in weighted color and alpha alike,
    and their quotient is right only if neither was clipped.
    """
    left, top, right, bottom = opacity.getbbox() or (0, 0, *opacity.size)  # where alpha is not 0
    across = _span(left, right, to.scale, to.left, to.size[0])
    down = _span(top, bottom, to.scale, to.top, to.size[1])
    part = across.low, down.low, across.high, down.high
    edges = (
        across.start - across.low,
        down.start - down.low,
        across.end - across.low,
        down.end - down.low,
    )
    size = across.last - across.first, down.last - down.first

    def scale(levels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC, edges))

    weight = np.asarray(opacity.crop(part), np.float32)
    scaled = scale(weight)
    seen = np.maximum(scaled, 0.5)  # below it alpha is 0
    bands = [
        _to_levels(scale(np.asarray(band, np.float32) * weight) / seen)
        for band in image.crop(part).split()
    ]
    picture, alpha = Image.new("RGB", to.size), Image.new("L", to.size)
    picture.paste(Image.merge("RGB", bands), (across.first, down.first))
    alpha.paste(_to_levels(scaled), (across.first, down.first))
    return picture, np.asarray(alpha)


def _to_levels(values: NDArray[np.floating]) -> Image.Image:
    """Return an image of mode L of values, rounded and clipped to 0..255."""
    return Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
