"""Images of results: contact sheets as JPEG, and the figures of the report."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images, rle, storage
from carvana_ray.cutouts import compositing
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.data import quarantine
from carvana_ray.errors import BadImageError
from carvana_ray.report import contact_sheet, overlays
from carvana_ray.report.contact_sheet import Tile
from carvana_ray.report.cutout_figure import cutout_figure
from carvana_ray.report.overlays import Caption, Figure

SHEET_CARS = 4  # cars with a contact sheet
CAR_COLUMNS, CAR_TILE_WIDTH = 8, 240
WORST_ON_SHEET, WORST_COLUMNS, WORST_TILE_WIDTH = 8, 4, 480
WORST_FIGURES, MEDIAN_FIGURES, EXAMPLE_FIGURES = 8, 4, 4  # on the page

Row = dict[str, Any]
Mask = NDArray[np.bool_]
SoftMask = NDArray[np.uint8]


def car_sheets(folder: str, cars: dict[str, list[Row]]) -> dict[str, bytes]:
    """Return a JPEG for each car, by file name: its images, and below each the car cut out.

    Args:
        folder: folder of the images.
        cars: rows of shards, by car.
    """
    sheets = {}
    for car, rows in cars.items():
        pairs = []
        for row in _readable(rows):
            data, mask = _load(folder, row)
            with _unless_damaged():
                image = contact_sheet.load_upright(data, CAR_TILE_WIDTH)
                cut = contact_sheet.overlay_checkerboard(image, mask)
                pairs.append(((row["img"], image), ("", cut)))
        if pairs:
            lines = _in_lines(pairs, CAR_COLUMNS)
            title = f"car {car}: images and cut-outs"
            sheets[f"{car}.jpg"] = contact_sheet.render_sheet(lines, title)
    return sheets


def worst_sheet(folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]) -> bytes:
    """Return the worst images as a JPEG: each image, and below it the errors of its mask.

    Args:
        folder, masks: folders of the images and of their true masks.
        mask_of: name of the true mask of each image.
        scores: img, dice, rle_mask, height, width of each image; at least one.
    """
    pairs = []
    for row in scores:
        data, mask = _load(folder, row)
        image = contact_sheet.load_upright(data, WORST_TILE_WIDTH)
        errors = contact_sheet.overlay_errors(image, mask, _true_mask(masks, mask_of, row))
        pairs.append(((f"{row['img']}  Dice {row['dice']:.4f}", image), ("", errors)))
    title = "Worst images. Red: mask without car. Blue: car without mask."
    return contact_sheet.render_sheet(_in_lines(pairs, WORST_COLUMNS), title)


def _in_lines(pairs: list[tuple[Tile, Tile]], columns: int) -> list[list[Tile]]:
    """Return lines of tiles: a line of up to `columns` upper tiles, below it their lower tiles."""
    lines: list[list[Tile]] = []
    for start in range(0, len(pairs), columns):
        lines += map(list, zip(*pairs[start : start + columns], strict=True))
    return lines


def scored_figures(
    folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]
) -> list[Figure]:
    """Return the figures of images whose true mask is known.

    Args:
        folder, masks, mask_of: see `worst_sheet`.
        scores: as of `worst_sheet`, with ceiling, more and less too.
    """
    figures = []
    for row in scores:
        lines = [
            f"Dice {row['dice']:.4f}; {row['ceiling']:.4f} is possible at this resolution",
            f"Too much: {row['more']:.2%} of the car. Missed: {row['less']:.2%}.",
        ]
        data, mask = _load(folder, row)
        truth = _true_mask(masks, mask_of, row)
        figures.append(overlays.scored_figure(row["img"], data, mask, truth, {"lines": lines}))
    return figures


def unscored_figures(
    folder: str, rows: Sequence[Row], captions: Sequence[Caption] = ()
) -> list[Figure]:
    """Return the figures of images whose true mask is not known.

    Args:
        folder: folder of the images.
        rows: of shards.
        captions: one for each image, or none at all.
    """
    figures = []
    for row, caption in zip(rows, captions or [Caption()] * len(rows), strict=True):
        data, mask = _load(folder, row)
        with _unless_damaged():
            figures.append(overlays.unscored_figure(row["img"], data, mask, caption))
    return figures


def cutout_figures(
    folder: str, rows: Sequence[Row], soft_masks: Mapping[str, SoftMask]
) -> list[Figure]:
    """Return the figures of cut-outs, as `cutout` makes them.

    Args:
        folder: folder of the images.
        rows: of shards.
        soft_masks: of the network, uint8 [h, w], by image; an image without one has hard edges, but
            not a corrected one.
    """
    figures = []
    for row in rows:
        data, hard = storage.read(storage.join(folder, row["img"])), None
        if (soft_mask := soft_masks.get(row["img"])) is None:
            hard = rle.decode(row["rle_mask"], row["height"], row["width"])
        soft = soft_mask is not None or row.get("status") == quarantine.CORRECTED
        style = CutoutStyle(soft, None, "png", mask_only=False)
        with _unless_damaged():
            cutout = Image.open(io.BytesIO(compositing.render(data, style, soft_mask, hard)))
            photo = Image.fromarray(contact_sheet.load_upright(data))
            figures.append(cutout_figure(row["img"], photo, cutout))
    return figures


def _unless_damaged() -> contextlib.AbstractContextManager[None]:
    """Leave out an image that cannot be decoded: a corrected one has a mask all the same."""
    return contextlib.suppress(BadImageError)


def pick_rows(cars: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return up to `EXAMPLE_FIGURES` good rows, about as many of each car, of views all around."""
    good = [found for rows in cars.values() if (found := _readable(rows))][:EXAMPLE_FIGURES]
    picked = []
    for number, rows in enumerate(good):
        count = len(range(number, EXAMPLE_FIGURES, len(good)))
        offset = (number + 0.5) / len(good)
        places = (int(len(rows) * (index + offset) / count) for index in range(count))
        picked += [rows[place] for place in dict.fromkeys(places)]
    return picked


def _readable(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if quarantine.is_good(row["status"])]


def _load(folder: str, row: Row) -> tuple[bytes, Mask]:
    """Return an image file and its predicted mask, turned upright as viewers show the image."""
    data = storage.read(storage.join(folder, row["img"]))
    mask = rle.decode(row["rle_mask"], row["height"], row["width"])
    return data, contact_sheet.turn_upright(data, mask)


def _true_mask(masks: str, mask_of: dict[str, str], row: Row) -> Mask:
    """Return the true mask of an image: the mask that a tool draws on the upright image."""
    return images.load_mask(storage.read(storage.join(masks, mask_of[row["img"]])))
