"""Contact sheets: cars cut out, and the worst pictures of an evaluation. JPEG bytes out."""

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
    sheets = {}
    for car, found in cars.items():
        rows = [row for row in found if row["status"] == shards.OK]
        lines: list[list[report.Tile]] = []
        for start in range(0, len(rows), CARS_A_LINE):
            small, cut = [], []
            for row in rows[start : start + CARS_A_LINE]:
                data = storage.read(storage.join(folder, row["img"]))
                picture = report.thumbnail(data, TILE_WIDTH)
                mask = rle.decode(row["rle_mask"], row["height"], row["width"])
                small.append((row["img"], picture))
                cut.append(("", report.cut_out(picture, mask)))
            lines += [small, cut]
        if lines:
            sheets[f"{car}.jpg"] = report.sheet(lines, f"car {car}: pictures and cut-outs")
    return sheets


def of_worst(folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]) -> bytes:
    """Return the worst pictures as a JPEG: each picture, and below it where its mask is wrong.

    Args:
        folder, masks: of the pictures and of their masks.
        mask_of: from picture to mask.
        scores: img, dice, rle_mask, height, width of each; at least one.
    """
    lines: list[list[report.Tile]] = []
    for start in range(0, len(scores), WORST_A_LINE):
        small, wrong = [], []
        for one in scores[start : start + WORST_A_LINE]:
            data = storage.read(storage.join(folder, one["img"]))
            picture = report.thumbnail(data, WORST_TILE_WIDTH)
            mask = rle.decode(one["rle_mask"], one["height"], one["width"])
            truth = images.load_mask(storage.read(storage.join(masks, mask_of[one["img"]])))
            small.append((f"{one['img']}  Dice {one['dice']:.4f}", picture))
            wrong.append(("", report.errors(picture, mask, truth)))
        lines += [small, wrong]
    title = "Worst pictures. Red: mask without car. Blue: car without mask."
    return report.sheet(lines, title)
