"""Pictures for people: small ones, cars cut out, errors in their colours, contact sheets."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Tile = tuple[str, NDArray[np.uint8]]

RED, BLUE = (230, 40, 40), (40, 110, 255)


def load_thumbnail(data: bytes, width: int) -> NDArray[np.uint8]:
    """Return a picture in colour, uint8 [h, width, 3]."""
    image = Image.open(io.BytesIO(data))
    height = max(1, round(image.height * width / image.width))
    image.draft("RGB", (width, height))
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BOX))


def coverage(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float32]:
    """Return the share of car, 0..1, of a mask of any size on height x width pixels."""
    full = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    small = full.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def overlay_checkerboard(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture [h, w, 3] with a checkerboard where a full-size mask has no car."""
    h, w = picture.shape[:2]
    share = coverage(mask, h, w)[..., None]
    rows, columns = np.mgrid[:h, :w] // 8
    board = np.where((rows + columns) % 2, 235, 205)[..., None]
    return (picture * share + board * (1 - share)).astype(np.uint8)


def overlay_errors(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return a picture [h, w, 3], gray, with wrong pixels in red and missed ones in blue.

    Masks are full size. Small errors are made visible: a grid pixel with any is at least half
    tinted.
    """
    h, w = picture.shape[:2]
    result = np.repeat(picture.mean(-1, keepdims=True), 3, axis=-1)
    for wrong, colour in ((mask & ~truth, RED), (truth & ~mask, BLUE)):
        share = coverage(wrong, h, w)[..., None]
        tint = np.where(share > 0, 0.5 + share / 2, 0)
        result = result * (1 - tint) + np.array(colour) * tint
    return result.astype(np.uint8)


def render_sheet(rows: Sequence[Sequence[Tile]], title: str) -> bytes:
    """Return a contact sheet as JPEG.

    Args:
        rows: each of (caption, uint8 [h, w, 3]); rows may be of several lengths and heights.
        title: a line above.
    """
    line, gap = 16, 4
    w = max(tile.shape[1] for row in rows for _, tile in row)
    heights = [line + gap + max(tile.shape[0] for _, tile in row) for row in rows]
    size = (max(map(len, rows)) * (w + gap) + gap, 2 * line + sum(heights))
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    draw.text((gap, 6), title, fill="black", font=font)
    top = 2 * line
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, tile) in enumerate(row):
            left = gap + column * (w + gap)
            draw.text((left, top), caption, fill="black", font=font)
            page.paste(Image.fromarray(tile), (left, top + line))
        top += height
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
