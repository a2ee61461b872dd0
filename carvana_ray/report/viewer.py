"""The pages that turn cars: one file a car with all its views, and an index of the cars.

A page needs no network, and has less than `MAX_BYTES`. It shows cut-outs before white, since tires
and shadows would vanish before a dark page.
"""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

from carvana_ray.images.decode import load_colors
from carvana_ray.report.page import render_template

MAX_BYTES = 1_000_000  # of a page of one car
MAX_VIEWS = 72  # of a page: one for each 5 degrees; of more views it shows a sample
SIDE = 1280  # pixels of the longer side of a view, at most
FULL_SIZE_VIEWS = 16  # of more views, each has less pixels, so that all of them have as many
QUALITY = 85  # of WebP; 16 real views of 1280 x 854 pixels take 460 kB
THUMBNAIL = 240  # pixels; about 2 kB


class View(NamedTuple):
    """A cut-out: at most `SIDE` pixels of it, and its size (width, height) in its file."""

    image: Image.Image
    size: tuple[int, int]


class CarLink(NamedTuple):
    """A car in the index: its name, the number of its views, and URIs relative to the index."""

    name: str
    views: int
    page: str
    thumbnail: str


def load_view(data: bytes, count: int) -> View:
    """Return one of `count` views, from the file of a cut-out, in sRGB and before white.

    Raises:
        BadImageError: it cannot be read.
    """
    decoded = load_colors(data, srgb=True)
    image = Image.new("RGB", decoded.rgb.size, "white")
    image.paste(decoded.rgb, mask=decoded.alpha)
    side = round(SIDE * min(1.0, math.sqrt(FULL_SIZE_VIEWS / count)))
    return View(_scaled(image, side / max(image.size)), image.size)


def on_one_canvas(views: Sequence[View]) -> list[Image.Image]:
    """Return images of one size, with all views at one scale and on one floor line.

    A smaller view stands in the middle of the lower edge, in the color of its own corner.
    """
    width, height = (max(sides) for sides in zip(*(view.size for view in views), strict=True))
    # None is enlarged: `load_view` has shrunk all views to at most the same longer side.
    scale = min(max(view.image.size) / max(view.size) for view in views)
    canvas = _scaled_size((width, height), scale)
    images = []
    for image, size in views:
        if (own := _scaled_size(size, scale)) != image.size:
            image = image.resize(own, Image.Resampling.LANCZOS)
        if own != canvas:
            below = Image.new("RGB", canvas, image.getpixel((0, 0)))
            below.paste(image, ((canvas[0] - own[0]) // 2, canvas[1] - own[1]))
            image = below
        images.append(image)
    return images


def thumbnail(image: Image.Image) -> bytes:
    """Return a small WebP file of an image."""
    return _encode(_scaled(image, THUMBNAIL / max(image.size)))


def render_viewer(car: str, images: Sequence[Image.Image], all_views: int, index: str) -> bytes:
    """Return the page of a car. Its images shrink until it has less than `MAX_BYTES`.

    Args:
        car: its name.
        images: its views in order, all of one size; at most `MAX_VIEWS`.
        all_views: number of the car's views, of which these are a sample.
        index: URI of the index, relative to the page.
    """
    data = {"car": car, "all_views": all_views, "index": index}

    def render(files: Sequence[bytes], size: tuple[int, int]) -> bytes:
        width, height = size
        sources = [f"data:image/webp;base64,{base64.b64encode(file).decode()}" for file in files]
        more = {"sources": sources, "width": width, "height": height}
        return render_template("viewer.html", "viewer.css", "viewer.js", {**data, **more})

    room = MAX_BYTES - len(render([b""] * len(images), (SIDE, SIDE)))
    scale = 1.0
    while True:
        scaled = [_scaled(image, scale) for image in images]
        files = [_encode(image) for image in scaled]
        # base64 makes 4 bytes of 3, and fills the last 3.
        needed = sum(4 * math.ceil(len(file) / 3) for file in files)
        if needed < room:
            return render(files, scaled[0].size)
        scale *= min(0.9, math.sqrt(room / needed))


def render_viewer_index(title: str, cars: Sequence[CarLink]) -> bytes:
    """Return the page that lists cars, each with a link and a thumbnail, a file of its own.

    It has 966,054 bytes for 6,254 cars. With the thumbnails it would have 18 MB.
    """
    links = [car._replace(page=quote(car.page), thumbnail=quote(car.thumbnail)) for car in cars]
    data = {"title": title, "cars": links}
    # 'self' is the server of the page; on disk browsers differ in what it stands for.
    return render_template("viewer_index.html", "viewer.css", "", data, "data: 'self' file:")


def _scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    """Return an image shrunk by a scale; as it is if the scale is 1 or more."""
    if scale >= 1:
        return image
    size = _scaled_size(image.size, scale)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()
