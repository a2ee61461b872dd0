"""Contact sheets: thumbnails, cut-out cars, errors in color."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Tile = tuple[str, NDArray[np.uint8]]  # caption, image [h, w, 3]

RED, BLUE = (230, 40, 40), (40, 110, 255)


def load_thumbnail(data: bytes, width: int) -> NDArray[np.uint8]:
    """Return an image file as RGB, uint8 [h, width, 3]."""
    image = Image.open(io.BytesIO(data))
    height = max(1, round(image.height * width / image.width))
    image.draft("RGB", (width, height))
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BOX))


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
    line, gap = 16, 4
    width = max(tile.shape[1] for row in rows for _, tile in row)
    heights = [line + gap + max(tile.shape[0] for _, tile in row) for row in rows]
    size = (max(map(len, rows)) * (width + gap) + gap, 2 * line + sum(heights))
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    draw.text((gap, 6), title, fill="black", font=font)
    top = 2 * line
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, tile) in enumerate(row):
            left = gap + column * (width + gap)
            draw.text((left, top), caption, fill="black", font=font)
            page.paste(Image.fromarray(tile), (left, top + line))
        top += height
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
