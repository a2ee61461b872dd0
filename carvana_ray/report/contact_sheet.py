"""Contact sheets: thumbnails, cut-out cars, errors in color."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from carvana_ray import images
from carvana_ray.images import turns, validate

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Tile = tuple[str, NDArray[np.uint8]]  # caption, image [h, w, 3]

RED, BLUE = (230, 40, 40), (40, 110, 255)


def load_upright(data: bytes, width: int = 0) -> NDArray[np.uint8]:
    """Return an image file as viewers show it, in RGB.

    Args:
        data: of any format that `images.load_upright` reads.
        width: of the result, uint8 [h, width, 3]; 0: as large as the image.

    Raises:
        BadImageError: see `images.load_upright`.
    """
    height, whole = validate.upright_size(validate.open_image(data))
    size = width or whole, max(1, round(height * (width or whole) / whole))
    return np.asarray(images.load_upright(data, size).resize(size, Image.Resampling.BOX))


def turn_upright(data: bytes, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of an image's stored pixels as viewers show the image."""
    turn = validate.exif_orientation(validate.open_image(data))
    return np.ascontiguousarray(turns.to_upright(mask, turn))


def coverage(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float32]:
    """Return the fraction 0..1 of each of height x width pixels that a mask of any size covers."""
    full = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    small = full.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def overlay_checkerboard(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return an image [h, w, 3] with a checkerboard where its full-size mask has no car."""
    height, width = image.shape[:2]
    alpha = coverage(mask, height, width)[..., None]
    rows, columns = np.mgrid[:height, :width] // 8
    board = np.where((rows + columns) % 2, 235, 205)[..., None]
    return (image * alpha + board * (1 - alpha)).astype(np.uint8)


def overlay_errors(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return an image [h, w, 3] in gray, with false positives in red and false negatives in blue.

    Masks are full size. Small errors stay visible: a pixel with any error is at least half tinted.
    """
    height, width = image.shape[:2]
    result = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    for wrong, color in ((mask & ~truth, RED), (truth & ~mask, BLUE)):
        fraction = coverage(wrong, height, width)[..., None]
        tint = np.where(fraction > 0, 0.5 + fraction / 2, 0)
        result = result * (1 - tint) + np.array(color) * tint
    return result.astype(np.uint8)


def render_sheet(rows: Sequence[Sequence[Tile]], title: str) -> bytes:
    """Return a contact sheet as JPEG.

    Args:
        rows: tiles of each row; rows may differ in length and height.
        title: first line of the sheet.
    """
    line, gap = 24, 6
    draw_font, title_font = ImageFont.load_default(17), ImageFont.load_default(20)
    width = max(tile.shape[1] for row in rows for _, tile in row)
    captions = [line if any(caption for caption, _ in row) else 0 for row in rows]
    heights = [max(tile.shape[0] for _, tile in row) for row in rows]
    tops = np.cumsum([2 * line, *(sum(pair) + gap for pair in zip(captions, heights, strict=True))])
    page = Image.new("RGB", (max(map(len, rows)) * (width + gap) + gap, int(tops[-1])), "white")
    draw = ImageDraw.Draw(page)
    draw.text((gap, 10), title, fill="black", font=title_font)
    for row, top, caption_height in zip(rows, tops.tolist(), captions, strict=False):
        for column, (caption, tile) in enumerate(row):
            left = gap + column * (width + gap)
            draw.text((left, top), _fit(caption, width, draw_font), fill="black", font=draw_font)
            page.paste(Image.fromarray(tile), (left, top + caption_height))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _fit(text: str, width: int, font: Font) -> str:
    """Return a text, or its start and an ellipsis, that is at most `width` pixels long."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}\N{HORIZONTAL ELLIPSIS}") > width:
        text = text[:-1]
    return f"{text}\N{HORIZONTAL ELLIPSIS}"
