"""A photograph and what is laid over it, small enough to stand in the page itself.

The photograph is stored once; errors, mask, truth, outline and the board behind a cut-out car are
pictures of a few colours and a few kB that the page shows on top of it, one at a time.
"""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.report.contact_sheet import BLUE, RED, coverage, load_thumbnail

Mask = NDArray[np.bool_]
Layer = dict[str, str]
Figure = dict[str, Any]

QUALITIES = (80, 60, 40, 20)
# Of a file at most, bytes a pixel; real pictures take 0.05 and 0.006.
PHOTO_BYTES, LAYER_BYTES = 0.12, 0.03
CLOSE_UP = 320, 480  # height and width of a close look, pixels of the picture
STEP = 16
_YELLOW, _BLACK = (255, 214, 0), (0, 0, 0)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encode_photo(picture: NDArray[np.uint8]) -> str:
    """Return a picture [h, w, 3] as a data URI (WebP), as good as `PHOTO_BYTES` allow."""
    image = Image.fromarray(picture)
    at_most = PHOTO_BYTES * image.width * image.height
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality)
            if buffer.tell() <= at_most or min(image.size) < 8:
                return _data_uri("webp", buffer.getvalue())
        image = image.reduce(2)


def encode_palette(index: NDArray[np.uint8], colours: list[tuple[int, ...]]) -> str:
    """Return a picture of a few colours as a data URI (PNG).

    Args:
        index: of the colour of each pixel, [h, w].
        colours: red, green, blue, and opacity where it is not 255.

    One with more than `LAYER_BYTES` is made coarser by halves until it fits.
    """
    at_most = max(LAYER_BYTES * index.size, 2_000)
    while True:
        image = Image.fromarray(index, "P")
        image.putpalette([value for colour in colours for value in colour[:3]])
        opacity = bytes(colour[3] if len(colour) > 3 else 255 for colour in colours)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", transparency=opacity, optimize=True)
        if buffer.tell() <= at_most or min(index.shape) < 8:
            return _data_uri("png", buffer.getvalue())
        index = np.ascontiguousarray(index[::2, ::2])


def error_layer(mask: Mask, truth: Mask, height: int, width: int) -> str:
    """Return a layer: red where there is mask without car, blue where car without mask.

    A pixel of the layer with any error is coloured, so that small ones are seen. Where the layer
    is of full size, missing parts are striped.
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
    return encode_palette(index, [(level,) * 3 for level in (0, 85, 170, 255)])


def cutout_layer(mask: Mask, height: int, width: int) -> str:
    """Return a layer: a checkerboard where there is no car, so that the car stands cut out."""
    hidden = np.rint((1 - coverage(mask, height, width)) * 3).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width] // 12
    index = hidden + ((rows + columns) % 2 * 4).astype(np.uint8)
    return encode_palette(
        index,
        [(level,) * 3 + (opacity,) for level in (205, 235) for opacity in (0, 85, 170, 255)],
    )


def outline_layer(mask: Mask, height: int, width: int) -> str:
    """Return a layer: the mask's outline in yellow, with a line of black around it."""
    inside = coverage(mask, height, width) > 0.5
    near = _dilate(inside)
    index = np.zeros((height, width), dtype=np.uint8)
    index[_dilate(near) & ~near] = 2
    index[near & ~inside] = 1
    index[inside & _dilate(~inside)] = 1
    return encode_palette(index, [(0, 0, 0, 0), _YELLOW, _BLACK])


def _dilate(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def layer(key: str, label: str, alt: str, source: str) -> Layer:
    """Return one of a figure's layers: its key, the label of its button, what it shows."""
    return {"key": key, "label": label, "alt": alt, "src": source}


def figure(name: str, picture: NDArray[np.uint8], layers: list[Layer], **words: Any) -> Figure:
    """Return a figure as plain values: a photograph [h, w, 3] and its layers, the first on top."""
    h, w = picture.shape[:2]
    size = {"name": name, "height": h, "width": w}
    return {**size, "photo": encode_photo(picture), "layers": layers, **words}


def scored_figure(
    name: str, data: bytes, mask: Mask, truth: Mask, width: int, words: dict[str, Any]
) -> Figure:
    """Return the figure of a picture whose mask is known, and a close look at its worst place.

    Args:
        name: of the picture.
        data: its file.
        mask, truth: bool [H, W].
        width: of the figure, pixels.
        words: what else to say of it.
    """
    picture = load_thumbnail(data, width)
    size = picture.shape[:2]
    wrong = "red where the mask has no car, blue where it misses some"
    layers = [
        layer("errors", "Errors", f"Errors of {name}: {wrong}", error_layer(mask, truth, *size)),
        layer("cut", "Cut-out", f"{name}, the car cut out", cutout_layer(mask, *size)),
        layer("mask", "Mask", f"The mask of {name}", mask_layer(mask, *size)),
        layer("truth", "Truth", f"The true mask of {name}", mask_layer(truth, *size)),
    ]
    top, left = find_worst_window(mask ^ truth, *CLOSE_UP)
    part = np.s_[top : top + CLOSE_UP[0], left : left + CLOSE_UP[1]]
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[part]
    near = [
        layer(
            "errors",
            "Errors",
            f"A close look at {name}: {wrong}, striped",
            error_layer(mask[part], truth[part], *whole.shape[:2]),
        )
    ]
    return figure(name, picture, layers, close=figure(name, whole, near), **words)


def find_worst_window(wrong: Mask, height: int, width: int) -> tuple[int, int]:
    """Return (top, left) of the window of a mask with the most pixels in it, to within `STEP`.

    Of several the one in the middle.
    """
    summed = np.pad(np.cumsum(np.cumsum(wrong, 0, np.int64), 1), ((1, 0), (1, 0)))
    tops, lefts = (
        np.append(np.arange(0, max(whole - part, 0), STEP), max(whole - part, 0))
        for whole, part in zip(wrong.shape, (height, width), strict=True)
    )
    bottoms = np.minimum(tops + height, wrong.shape[0])
    rights = np.minimum(lefts + width, wrong.shape[1])
    inside = (
        summed[np.ix_(bottoms, rights)]
        - summed[np.ix_(tops, rights)]
        - summed[np.ix_(bottoms, lefts)]
        + summed[np.ix_(tops, lefts)]
    )
    best = np.argwhere(inside == inside.max())
    row, column = best[len(best) // 2]
    return int(tops[row]), int(lefts[column])


def unscored_figure(
    name: str, data: bytes, mask: Mask, width: int, words: dict[str, Any], cut_first: bool = False
) -> Figure:
    """Return the figure of a picture whose true mask is not known; see `scored`.

    `cut_first`: the cut-out car lies on top at first, not the outline.
    """
    picture = load_thumbnail(data, width)
    size = picture.shape[:2]
    layers = [
        layer(
            "outline", "Outline", f"{name} with the outline of its mask", outline_layer(mask, *size)
        ),
        layer("cut", "Cut-out", f"{name}, the car cut out", cutout_layer(mask, *size)),
    ]
    return figure(name, picture, layers[::-1] if cut_first else layers, **words)
