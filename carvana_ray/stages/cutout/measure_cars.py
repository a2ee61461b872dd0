"""Last map of the measuring pass: masks in, the size of each car's box out.

The box comes from the runs of the mask: no mask is decoded. Imports no torch, as these tasks run
in processes of their own, which should start quickly.
"""

import zlib
from typing import NamedTuple

import numpy as np

from carvana_ray import rle, storage
from carvana_ray.cutouts.framing import Size, car_box
from carvana_ray.data.quarantine import OK, UNREACHABLE, is_good
from carvana_ray.errors import BadImageError
from carvana_ray.images.pieces import Ints
from carvana_ray.images.turns import swaps_axes
from carvana_ray.images.validate import exif_orientation, open_image, require_crc
from carvana_ray.stages.cutout.write_cutouts import PROBLEM
from carvana_ray.stages.ingest.blocks import Columns, single_row
from carvana_ray.stages.ingest.read_images import (
    crc_or_none,
    listed_files,
    read_listed,
    require_readable,
)

NO_CAR = 0, 0


class Measured(NamedTuple):
    """One image; the size is `NO_CAR` if its mask has no car, or if it has no mask."""

    file: str
    img: str
    crc32: int
    status: str
    size: Size


def measure_masks(batch: Columns, folder: str) -> Columns:
    """Map columns of `MaskPredictor` to the sizes of cars.

    Args:
        batch: the columns.
        folder: URI of the images.

    Returns:
        columns [n]: file, img, crc32, status (`OK`, the reason why the image is bad, or `PROBLEM`
        and its cause), and width and height of the car's box in the upright image, in pixels; 0
        without a car.
    """
    names = "file", "img", "crc32", "status", "width", "orientation", "run_bounds"
    rows = []
    for file, name, crc, status, width, turn, data in zip(*(batch[n] for n in names), strict=True):
        size = NO_CAR
        if is_good(status):
            bounds = np.frombuffer(data, np.int32).astype(np.int64)
            size = upright_size(bounds[0::2], bounds[1::2], int(width), int(turn))
        elif status.startswith(UNREACHABLE):
            status = f"{PROBLEM}: {storage.join(folder, name)}: {status}"
        rows.append(Measured(str(file), str(name), int(crc), str(status), size))
    return _columns(rows)


def measure_rows(batch: Columns, folder: str) -> Columns:
    """Map a row of `block_row` with texts of masks to the sizes of cars.

    Only the headers of the images are decoded: a row of a submission does not say how wide its
    image is.

    Returns:
        as `measure_masks`.
    """
    block = single_row(batch)
    columns = (block[key] for key in ("crcs", "preset_status", "texts"))
    images = list(zip(listed_files(block), *columns, strict=True))
    answers = read_listed(folder, [image for image, _, preset, _ in images if not preset])
    rows = []
    for image, expected, preset, text in images:
        status, crc, size = str(preset), 0, NO_CAR
        if not status:
            answer = next(answers)
            crc = zlib.crc32(answer) if isinstance(answer, bytes) else 0
            try:
                size = _measure_row(answer, crc_or_none(expected), str(text))
                status = OK
            except BadImageError as error:
                status = str(error)
            except OSError as error:
                uri = storage.join(folder, image.name)
                status = f"{PROBLEM}: {uri}: {UNREACHABLE}: {error.strerror or error}"
        rows.append(Measured(str(block["file"]), image.name, crc, status, size))
    return _columns(rows)


def _measure_row(answer: bytes | Exception, crc: int | None, text: str) -> Size:
    """Return the size of the car in the mask of a text; raises as `require_readable`."""
    data = require_readable(answer)
    require_crc(data, crc)
    image = open_image(data)
    try:
        runs = rle.parse_runs(text, image.height * image.width)
    except ValueError as error:
        raise BadImageError(f"row: {error}") from error
    return upright_size(*runs, image.width, exif_orientation(image))


def upright_size(starts: Ints, ends: Ints, width: int, orientation: int) -> Size:
    """Return the size of the car's box in an upright image, or `NO_CAR`.

    Args:
        starts, ends, width: see `car_box`; of the stored pixels.
        orientation: of EXIF, 1 to 8.
    """
    box = car_box(starts, ends, width)
    if not box:
        return NO_CAR
    return (box.size[1], box.size[0]) if swaps_axes(orientation) else box.size


def _columns(rows: list[Measured]) -> Columns:
    files, names, crcs, statuses, sizes = zip(*rows, strict=True)
    widths, heights = zip(*sizes, strict=True)
    return {
        "file": np.array(files),
        "img": np.array(names),
        "crc32": np.array(crcs),
        "status": np.array(statuses),
        "width": np.array(widths),
        "height": np.array(heights),
    }
