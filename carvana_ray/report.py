"""Results for people: curves, contact sheets, overlays, one HTML page. Bytes out, no files."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Tile = tuple[str, NDArray[np.uint8]]

_RED, _BLUE = (230, 40, 40), (40, 110, 255)
_CURVES = {
    "loss": ("loss", "cross entropy / 2 - Dice + 1", ("loss",)),
    "accuracy": ("accuracy", "share of pixels, network resolution", ("accuracy",)),
    "dice": ("Dice", "network resolution", ("dice", "soft_dice")),
}


def curves(history: Sequence[Mapping[str, float]]) -> dict[str, bytes]:
    """Return ``loss.png``, ``accuracy.png`` and ``dice.png`` of a history, a row an epoch."""
    epochs = [row["epoch"] for row in history]
    files = {}
    for file, (title, unit, keys) in _CURVES.items():
        figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
        axes = figure.add_subplot(xlabel="epoch", ylabel=unit, title=title)
        for key in keys:
            for prefix, kind, style in (("", "training", "o--"), ("val_", "validation", "o-")):
                if any(prefix + key in row for row in history):
                    values = [row.get(prefix + key, np.nan) for row in history]
                    label = f"{kind}, soft" if key.startswith("soft") else kind
                    axes.plot(epochs, values, style, label=label, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        files[f"{file}.png"] = buffer.getvalue()
    return files


def thumbnail(data: bytes, width: int) -> NDArray[np.uint8]:
    """Return a picture in colour, uint8 [h, width, 3]."""
    image = Image.open(io.BytesIO(data))
    height = max(1, round(image.height * width / image.width))
    image.draft("RGB", (width, height))
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BOX))


def shrink_to(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float32]:
    """Return the share of car, 0..1, of a mask of any size on height x width pixels."""
    full = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    small = full.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def cut_out(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture [h, w, 3] with a checkerboard where a full-size mask has no car."""
    h, w = picture.shape[:2]
    share = shrink_to(mask, h, w)[..., None]
    rows, columns = np.mgrid[:h, :w] // 8
    board = np.where((rows + columns) % 2, 235, 205)[..., None]
    return (picture * share + board * (1 - share)).astype(np.uint8)


def errors(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return a picture [h, w, 3], gray, with wrong pixels in red and missed ones in blue.

    Masks are full size. Small errors are made visible: a grid pixel with any is at least half
    tinted.
    """
    h, w = picture.shape[:2]
    result = np.repeat(picture.mean(-1, keepdims=True), 3, axis=-1)
    for wrong, colour in ((mask & ~truth, _RED), (truth & ~mask, _BLUE)):
        share = shrink_to(wrong, h, w)[..., None]
        tint = np.where(share > 0, 0.5 + share / 2, 0)
        result = result * (1 - tint) + np.array(colour) * tint
    return result.astype(np.uint8)


def sheet(rows: Sequence[Sequence[Tile]], title: str) -> bytes:
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


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML table."""
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def picture(data: bytes, alt: str) -> str:
    """Return an HTML image that holds its own bytes (PNG or JPEG)."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    text = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{text}">'


def page(title: str, sections: Mapping[str, str]) -> bytes:
    """Return one self-contained HTML page: no script, no network.

    Args:
        title: of the page, plain text.
        sections: heading to HTML.
    """
    body = "".join(
        f"<section><h2>{html.escape(name)}</h2>{text}</section>" for name, text in sections.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif;
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }}
section {{ overflow-x: auto }}
table {{ border-collapse: collapse }}
td, th {{ padding: .2rem .8rem; border-bottom: 1px solid #8886; text-align: left }}
td + td {{ font-variant-numeric: tabular-nums }}
</style></head><body><main><h1>{html.escape(title)}</h1>{body}</main></body></html>
""".encode()
