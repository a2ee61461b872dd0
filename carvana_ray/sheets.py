"""Contact sheets: cars cut out, and the worst pictures of an evaluation. JPEG bytes out."""

from typing import Any

from carvana_ray import images, report, rle, shards, storage

CARS, TILE_WIDTH = 4, 240  # cars that get a sheet of their own; pixels of a tile
WORST, WORST_TILE_WIDTH = 8, 480

Row = dict[str, Any]


def of_cars(folder: str, cars: dict[str, list[Row]]) -> dict[str, bytes]:
    """Return a JPEG for each car: its pictures, and below each the car cut out.

    Args:
        folder: of the pictures.
        cars: rows of shards, by car.
    """
    sheets = {}
    for car, rows in cars.items():
        columns = min(8, len(rows))
        tiles: list[report.Tile] = []
        for start in range(0, len(rows), columns):
            line = [row for row in rows[start : start + columns] if row["status"] == shards.OK]
            data = [storage.read(storage.join(folder, row["img"])) for row in line]
            small = [report.thumbnail(one, TILE_WIDTH) for one in data]
            masks = [rle.decode(row["rle_mask"], row["height"], row["width"]) for row in line]
            cut = [report.cut_out(*pair) for pair in zip(small, masks, strict=True)]
            tiles += [(row["img"], one) for row, one in zip(line, small, strict=True)]
            tiles += [("", one) for one in cut]
        if tiles:
            sheets[f"{car}.jpg"] = report.sheet(tiles, columns, f"car {car}: pictures and cut-outs")
    return sheets


def of_worst(folder: str, masks: str, mask_of: dict[str, str], scores: list[Row]) -> bytes:
    """Return the worst pictures as a JPEG: each picture, and below it where its mask is wrong."""
    tiles: list[report.Tile] = []
    for start in range(0, len(scores), 4):
        line = scores[start : start + 4]
        small, wrong = [], []
        for one in line:
            picture = report.thumbnail(
                storage.read(storage.join(folder, one["img"])), WORST_TILE_WIDTH
            )
            mask = rle.decode(one["rle_mask"], one["height"], one["width"])
            truth = images.load_mask(storage.read(storage.join(masks, mask_of[one["img"]])))
            small.append((f"{one['img']}  Dice {one['dice']:.4f}", picture))
            wrong.append(("", report.errors(picture, mask, truth)))
        tiles += small + wrong
    title = "Worst pictures. Red: mask without car. Blue: car without mask."
    return report.sheet(tiles, min(4, len(scores)), title)
