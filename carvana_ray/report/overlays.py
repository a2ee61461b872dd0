"""A photo and its overlays, small enough to be part of the page.

The photo is stored once. Errors, mask, true mask, outline and the checkerboard behind a cut-out car
are images of a few colors and a few kB; the page shows one of them at a time on top of the photo.
"""

import base64
import io
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.images.outline import COLORS, draw_outline
from carvana_ray.report.contact_sheet import BLUE, RED, coverage, load_upright

Mask = NDArray[np.bool_]

SCORED_WIDTH, UNSCORED_WIDTH = 720, 480  # pixels of a figure
# Maximum bytes per pixel of a file; real images take 0.05 and 0.006.
PHOTO_BYTES, LAYER_BYTES = 0.12, 0.03
CLOSE_UP = 320, 480  # height and width, pixels of the image
STEP = 16


class Layer(TypedDict):
    """An overlay."""

    key: str
    label: str  # of its button
    alt: str
    src: str  # data URI
    real: NotRequired[bool]  # whether it has an alpha of its own, and hides the photo


class Caption(TypedDict, total=False):
    """Sentences about an image, and the reasons to check it."""

    lines: list[str]
    reasons: list[str]


class Figure(Caption):
    """A photo (data URI) of height x width pixels and its layers; the page starts with the first.

    close is the worst part of the image, pixel by pixel.
    """

    name: str
    height: int
    width: int
    photo: str
    layers: list[Layer]
    close: NotRequired["Figure"]


def scored_figure(name: str, data: bytes, mask: Mask, truth: Mask, caption: Caption) -> Figure:
    """Return the figure of an image whose true mask is known, with its worst part enlarged.

    Args:
        name, data: name and bytes of the image file.
        mask, truth: predicted and true mask, bool [H, W], upright as the figure is.
        caption: sentences and reasons of the figure.
    """
    image = load_upright(data, SCORED_WIDTH)
    size = image.shape[:2]
    legend = "red where the mask has no car, blue where it misses some"
    layers = [
        make_layer(
            "errors", "Errors", f"Errors of {name}: {legend}", error_layer(mask, truth, *size)
        ),
        make_layer("cut", "Cut-out", f"{name}, the car cut out", cutout_layer(mask, *size)),
        make_layer("mask", "Mask", f"The mask of {name}", mask_layer(mask, *size)),
        make_layer("truth", "True mask", f"The true mask of {name}", mask_layer(truth, *size)),
    ]
    top, left = find_worst_window(mask ^ truth, *CLOSE_UP)
    part = np.s_[top : top + CLOSE_UP[0], left : left + CLOSE_UP[1]]
    close = load_upright(data)[part]
    source = error_layer(mask[part], truth[part], *close.shape[:2])
    errors = make_layer("errors", "Errors", f"The worst part of {name}: {legend}, striped", source)
    figure = make_figure(name, image, layers, caption)
    return {**figure, "close": make_figure(name, close, [errors], {})}


def unscored_figure(name: str, data: bytes, mask: Mask, caption: Caption) -> Figure:
    """Return the figure of an image whose true mask is not known; see `scored_figure`.

    With a caption it first shows the outline, which the caption is about, else the cut-out car.
    """
    image = load_upright(data, UNSCORED_WIDTH)
    size = image.shape[:2]
    alt = f"{name} with the outline of its mask"
    layers = [
        make_layer("outline", "Outline", alt, outline_layer(mask, *size)),
        make_layer("cut", "Cut-out", f"{name}, the car cut out", cutout_layer(mask, *size)),
    ]
    return make_figure(name, image, layers if caption else layers[::-1], caption)


def make_layer(key: str, label: str, alt: str, source: str) -> Layer:
    """Return a layer of this key, label of its button, alt text and data URI."""
    return {"key": key, "label": label, "alt": alt, "src": source}


def make_figure(
    name: str, image: NDArray[np.uint8], layers: list[Layer], caption: Caption
) -> Figure:
    height, width = image.shape[:2]
    return {
        "name": name,
        "height": height,
        "width": width,
        "photo": encode_photo(image),
        "layers": layers,
        **caption,
    }


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encode_photo(pixels: NDArray[np.uint8]) -> str:
    """Return an image as a data URI (WebP), in the best quality within `PHOTO_BYTES`.

    Args:
        pixels: uint8 [h, w, 3], or with alpha [h, w, 4].
    """
    image = Image.fromarray(pixels)
    max_bytes = PHOTO_BYTES * image.width * image.height
    while True:
        for quality in (80, 60, 40, 20):
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality)
            if buffer.tell() <= max_bytes or min(image.size) < 8:
                return _data_uri("webp", buffer.getvalue())
        image = image.reduce(2)


def encode_palette(index: NDArray[np.uint8], colors: list[tuple[int, ...]]) -> str:
    """Return an image of a few colors as a data URI (PNG), halved in size until it is small enough.

    Args:
        index: index into `colors` of each pixel, [h, w].
        colors: red, green, blue and optionally opacity (default 255), 0..255.
    """
    max_bytes = max(LAYER_BYTES * index.size, 2_000)
    while True:
        image = Image.fromarray(index, "P")
        image.putpalette([value for color in colors for value in color[:3]])
        opacity = bytes(color[3] if len(color) > 3 else 255 for color in colors)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", transparency=opacity, optimize=True)
        if buffer.tell() <= max_bytes or min(index.shape) < 8:
            return _data_uri("png", buffer.getvalue())
        index = np.ascontiguousarray(index[::2, ::2])


def error_layer(mask: Mask, truth: Mask, height: int, width: int) -> str:
    """Return a layer: red where the mask has no car, blue where it misses some.

    A pixel of the layer is colored if any of its pixels is wrong, so that small errors are visible.
    In a layer of full size missed parts are striped.
    """
    index = np.zeros((height, width), dtype=np.uint8)
    index[coverage(mask & ~truth, height, width) > 0] = 1
    missed = coverage(truth & ~mask, height, width) > 0
    if mask.shape == (height, width):
        rows, columns = np.mgrid[:height, :width]
        index[missed] = np.where((rows + columns) // 2 % 2, 2, 3)[missed]
    else:
        index[missed] = 2
    return encode_palette(index, [(0, 0, 0, 0), RED, BLUE, (255, 255, 255)])


def mask_layer(mask: Mask, height: int, width: int) -> str:
    """Return a layer: the mask in white on black, with soft edges."""
    index = np.rint(coverage(mask, height, width) * 3).astype(np.uint8)
    return encode_palette(index, [(c, c, c) for c in (0, 85, 170, 255)])


def cutout_layer(mask: Mask, height: int, width: int) -> str:
    """Return a layer that hides the background behind a checkerboard."""
    hidden = np.rint((1 - coverage(mask, height, width)) * 3).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width] // 12
    index = hidden + ((rows + columns) % 2 * 4).astype(np.uint8)
    opacities = 0, 85, 170, 255
    return encode_palette(index, [(c, c, c, a) for c in (205, 235) for a in opacities])


def outline_layer(mask: Mask, height: int, width: int) -> str:
    """Return a layer: the mask's outline in yellow, with a black line around it."""
    return encode_palette(draw_outline(coverage(mask, height, width) > 0.5), list(COLORS))


def find_worst_window(wrong: Mask, height: int, width: int) -> tuple[int, int]:
    """Return (top, left) of the height x width window with the most wrong pixels, to `STEP` pixels.

    On ties return the middle one.
    """
    height, width = min(height, wrong.shape[0]), min(width, wrong.shape[1])
    summed = np.pad(wrong.cumsum(0, np.int64).cumsum(1), ((1, 0), (1, 0)))
    tops, lefts = (
        np.append(np.arange(0, size - window, STEP), size - window)
        for size, window in zip(wrong.shape, (height, width), strict=True)
    )
    in_rows = summed[tops + height] - summed[tops]
    inside = in_rows[:, lefts + width] - in_rows[:, lefts]
    best = np.argwhere(inside == inside.max())
    row, column = best[len(best) // 2]
    return int(tops[row]), int(lefts[column])
