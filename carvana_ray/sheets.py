"""Contact sheets: cars cut out, and the worst pictures of an evaluation. JPEG bytes out."""

from collections.abc import Callable, Sequence
from typing import Any

from carvana_ray import images, report, rle, shards, storage

CARS, CARS_A_LINE, TILE_WIDTH = 4, 8, 240  # cars with a sheet of their own; pixels of a tile
WORST, WORST_A_LINE, WORST_TILE_WIDTH = 8, 4, 480

Row = dict[str, Any]


def of_cars(folder: str, cars: dict[str, list[Row]]) -> dict[str, bytes]:
    """Return a JPEG for each car: its pictures, and below each the car cut out.

    Args:
        folder: of the pictures.
        cars: rows of shards, by car.
    """

    def tiles(row: Row) -> tuple[report.Tile, report.Tile]:
        picture = report.thumbnail(storage.read(storage.join(folder, row["img"])), TILE_WIDTH)
        mask = rle.decode(row["rle_mask"], row["height"], row["width"])
        return (row["img"], picture), ("", report.cut_out(picture, mask))

    sheets = {}
    for car, found in cars.items():
        rows = [row for row in found if row["status"] == shards.OK]
        if lines := _in_lines(rows, CARS_A_LINE, tiles):
            sheets[f"{car}.jpg"] = report.sheet(lines, f"car {car}: pictures and cut-outs")
    return sheets


def of_worst(folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]) -> bytes:
    """Return the worst pictures as a JPEG: each picture, and below it where its mask is wrong.

    Args:
        folder, masks: of the pictures and of their masks.
        mask_of: from picture to mask.
        scores: img, dice, rle_mask, height, width of each; at least one.
    """

    def tiles(one: Row) -> tuple[report.Tile, report.Tile]:
        data = storage.read(storage.join(folder, one["img"]))
        picture = report.thumbnail(data, WORST_TILE_WIDTH)
        mask = rle.decode(one["rle_mask"], one["height"], one["width"])
        truth = images.load_mask(storage.read(storage.join(masks, mask_of[one["img"]])))
        caption = f"{one['img']}  Dice {one['dice']:.4f}"
        return (caption, picture), ("", report.errors(picture, mask, truth))

    title = "Worst pictures. Red: mask without car. Blue: car without mask."
    return report.sheet(_in_lines(scores, WORST_A_LINE, tiles), title)


def _in_lines(
    rows: Sequence[Row], a_line: int, tiles: Callable[[Row], tuple[report.Tile, report.Tile]]
) -> list[list[report.Tile]]:
    """Return lines of tiles: `a_line` upper ones, and below them their lower ones."""
    lines: list[list[report.Tile]] = []
    for start in range(0, len(rows), a_line):
        pairs = [tiles(row) for row in rows[start : start + a_line]]
        lines += [list(line) for line in zip(*pairs, strict=True)]
    return lines
