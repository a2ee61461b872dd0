"""Pictures of results: contact sheets as JPEG, and the figures of the report."""

from collections.abc import Callable, Sequence
from typing import Any

from carvana_ray import images, report, rle, storage
from carvana_ray.data import quarantine
from carvana_ray.report import overlays as layers

SHEET_CARS, CAR_COLUMNS, CAR_TILE_WIDTH = (
    4,
    8,
    240,
)  # cars with a sheet of their own; pixels of a tile
WORST_ON_SHEET, WORST_COLUMNS, WORST_TILE_WIDTH = 8, 4, 480

SCORED_WIDTH, UNSCORED_WIDTH = 720, 480  # of the report
WORST_FIGURES, MEDIAN_FIGURES, EXAMPLE_FIGURES = 8, 4, 8  # figures

Row = dict[str, Any]


def car_sheets(folder: str, cars: dict[str, list[Row]]) -> dict[str, bytes]:
    """Return a JPEG for each car: its pictures, and below each the car cut out.

    Args:
        folder: of the pictures.
        cars: rows of shards, by car.
    """

    def tiles(row: Row) -> tuple[report.Tile, report.Tile]:
        picture = report.load_thumbnail(
            storage.read(storage.join(folder, row["img"])), CAR_TILE_WIDTH
        )
        mask = rle.decode(row["rle_mask"], row["height"], row["width"])
        return (row["img"], picture), ("", report.overlay_checkerboard(picture, mask))

    sheets = {}
    for car, found in cars.items():
        rows = [row for row in found if row["status"] == quarantine.OK]
        if lines := _in_lines(rows, CAR_COLUMNS, tiles):
            sheets[f"{car}.jpg"] = report.render_sheet(lines, f"car {car}: pictures and cut-outs")
    return sheets


def worst_sheet(folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]) -> bytes:
    """Return the worst pictures as a JPEG: each picture, and below it where its mask is wrong.

    Args:
        folder, masks: of the pictures and of their masks.
        mask_of: from picture to mask.
        scores: img, dice, rle_mask, height, width of each; at least one.
    """

    def tiles(one: Row) -> tuple[report.Tile, report.Tile]:
        data = storage.read(storage.join(folder, one["img"]))
        picture = report.load_thumbnail(data, WORST_TILE_WIDTH)
        mask = rle.decode(one["rle_mask"], one["height"], one["width"])
        truth = images.load_mask(storage.read(storage.join(masks, mask_of[one["img"]])))
        caption = f"{one['img']}  Dice {one['dice']:.4f}"
        return (caption, picture), ("", report.overlay_errors(picture, mask, truth))

    title = "Worst pictures. Red: mask without car. Blue: car without mask."
    return report.render_sheet(_in_lines(scores, WORST_COLUMNS, tiles), title)


def scored_figures(
    folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]
) -> list[Any]:
    """Return the figures of pictures whose mask is known; the arguments are those of `of_worst`."""

    def made(one: Row) -> Any:
        data = storage.read(storage.join(folder, one["img"]))
        mask = rle.decode(one["rle_mask"], one["height"], one["width"])
        truth = images.load_mask(storage.read(storage.join(masks, mask_of[one["img"]])))
        words = f"Dice {one['dice']:.4f}, of {one['ceiling']:.4f} that this grid allows"
        wrong = f"Too much: {one['more']:.2%} of the car. Missed: {one['less']:.2%}."
        lines = {"lines": [words, wrong]}
        return layers.scored_figure(one["img"], data, mask, truth, SCORED_WIDTH, lines)

    return [made(one) for one in scores]


def unscored_figures(
    folder: str, rows: Sequence[Row], words: Sequence[dict[str, Any]] | None = None
) -> list[Any]:
    """Return the figures of pictures whose true mask is not known.

    Args:
        folder: of the pictures.
        rows: of shards.
        words: what to say of each, see `layers.figure`; None: nothing, they are shown cut out.
    """

    def made(row: Row, said: dict[str, Any]) -> Any:
        data = storage.read(storage.join(folder, row["img"]))
        mask = rle.decode(row["rle_mask"], row["height"], row["width"])
        return layers.unscored_figure(
            row["img"], data, mask, UNSCORED_WIDTH, said, cut_first=words is None
        )

    return [made(*one) for one in zip(rows, words or [{}] * len(rows), strict=True)]


def pick_rows(cars: dict[str, list[Row]]) -> list[Row]:
    """Return a few good rows of some cars, by car: as far apart from each other as may be."""
    each = max(EXAMPLE_FIGURES // max(len(cars), 1), 1)
    found = []
    for rows in cars.values():
        good = [row for row in rows if row["status"] == quarantine.OK]
        found += [good[len(good) * place // each] for place in range(min(each, len(good)))]
    return found[:EXAMPLE_FIGURES]


def _in_lines(
    rows: Sequence[Row], a_line: int, tiles: Callable[[Row], tuple[report.Tile, report.Tile]]
) -> list[list[report.Tile]]:
    """Return lines of tiles: `a_line` upper ones, and below them their lower ones."""
    lines: list[list[report.Tile]] = []
    for start in range(0, len(rows), a_line):
        pairs = [tiles(row) for row in rows[start : start + a_line]]
        lines += [list(line) for line in zip(*pairs, strict=True)]
    return lines
