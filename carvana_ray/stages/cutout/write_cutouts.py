"""Last map of a cut-out job: masks in, one file per cut-out out.

Full-size images do not travel through Ray: the task that writes a cut-out opens and decodes its
image itself. It holds one image at a time, about 40 MB for 1918 x 1280.

Imports no torch: these tasks run in processes of their own, which should start quickly.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carvana_ray import rle, storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.compositing import CutoutStyle, render
from carvana_ray.cutouts.framing import Size
from carvana_ray.data.quarantine import CORRECTED, OK, UNREACHABLE, is_good
from carvana_ray.errors import BadImageError, InputError, first_line
from carvana_ray.images.validate import MAX_BYTES, image_size, require_crc
from carvana_ray.stages.ingest.blocks import Columns, single_row
from carvana_ray.stages.ingest.read_images import (
    crc_or_none,
    listed_files,
    read_listed,
    require_readable,
)

CHANGED = "it changed while it was being cut out"
PROBLEM = "problem"  # first word of the status of a good image whose cut-out could not be made

Row = tuple[str, str, int, str]  # file, img, crc32, status


class Place(NamedTuple):
    """An image and its cut-out.

    Attributes:
        name: of the image in the folder of images.
        cutout: path of the cut-out in the folder of cut-outs.
        tag: see `SourceImage.tag`.
        extent: see `compositing.render`.
    """

    name: str
    cutout: str
    tag: str
    extent: Size | None = None


@dataclass(frozen=True)
class CutoutWriter:
    """Renders and writes cut-outs.

    Attributes:
        folder: URI of the images.
        target: URI of the folder of cut-outs; None to render them without writing.
        style: how they look.
    """

    folder: str
    target: str | None
    style: CutoutStyle

    def read(self, names: Iterable[str]) -> Iterator[bytes | Exception]:
        """Yield the bytes of image files, or the reason why a file cannot be read."""
        return storage.read_many([storage.join(self.folder, name) for name in names], MAX_BYTES)

    def write(
        self,
        place: Place,
        answer: bytes | Exception,
        crc: int | None,
        mask: NDArray[np.uint8] | NDArray[np.bool_] | str,
    ) -> str:
        """Render and write one cut-out.

        Args:
            place: of the image and of the cut-out.
            answer: the bytes of its file, or the reason why it cannot be read.
            crc: CRC-32 that the file must have, if known; required unless the mask is a text.
            mask: soft mask, uint8 [h, w], a mask, bool [H, W], or the run-length text of a mask.

        Returns:
            `OK`, the reason why the image is bad, or `PROBLEM` and its cause.
        """
        try:
            data = require_readable(answer)
            if isinstance(mask, str):
                require_crc(data, crc)
                mask = _decode_mask(mask, image_size(data))
            elif zlib.crc32(data) != crc:
                return f"{PROBLEM}: {storage.join(self.folder, place.name)}: {CHANGED}"
            given: dict[str, Any] = {"mask" if mask.dtype == np.bool_ else "soft_mask": mask}
            cutout = render(data, self.style, extent=place.extent, **given)
        except BadImageError as error:
            return str(error)
        except OSError as error:
            return f"{PROBLEM}: {error.filename or place.name}: {error.strerror or error}"
        if self.target is None:
            return OK
        problem = self._publish(self.target, place, cutout)
        return f"{PROBLEM}: {problem}" if problem else OK

    def _publish(self, target: str, place: Place, cutout: bytes) -> str:
        """Write the cut-out of an image; return the problem if the write fails, else ""."""
        uri, image = storage.join(target, place.cutout), storage.join(self.folder, place.name)
        try:
            if not storage.write_atomic(uri, cutout):
                return (
                    f"{uri}: holds other bytes than the cut-out of {image}; another command wrote "
                    "them, or this disk takes the names of two images for one: if it happens "
                    "again, rename the image"
                )
            if index.tags(target).get(place.cutout) == place.tag:
                return ""
            storage.remove(uri)
            return f"{image}: {CHANGED}, and another command took its new version"
        except (OSError, InputError) as error:
            return f"{uri}: {getattr(error, 'strerror', None) or first_line(error)}"


def write_from_soft_masks(batch: Columns, writer: CutoutWriter) -> Columns:
    """Map columns of `SoftMaskPredictor`, and those of `places_of`, to cut-outs.

    Returns:
        columns [n]: file, img, crc32 (of the image file), status, see `CutoutWriter.write`,
        `CORRECTED` instead of `OK` for a corrected mask, and
        pixels: of an image that the network has seen, else 0.
    """
    good = np.array([is_good(status) for status in batch["status"]], dtype=bool)
    answers = writer.read(batch["img"][good].tolist())
    rows: list[Row] = []
    for row, place in enumerate(places_of(batch["img"].tolist(), batch)):
        name, crc, status = place.name, int(batch["crc32"][row]), str(batch["status"][row])
        if good[row]:
            written = writer.write(place, next(answers), crc, _mask_of(batch, row))
            status = written if written != OK else status
        elif status.startswith(UNREACHABLE):
            status = f"{PROBLEM}: {storage.join(writer.folder, name)}: {status}"
        rows.append((str(batch["file"][row]), name, crc, status))
    pixels = batch["height"] * batch["width"] * (batch["status"] == OK)
    return {**_columns(rows), "pixels": pixels}


def write_from_rows(batch: Columns, writer: CutoutWriter) -> Columns:
    """Map a row of `block_row` with texts of masks, and columns of `places_of`, to cut-outs.

    Returns:
        as `write_from_soft_masks`.
    """
    block = single_row(batch)
    files = listed_files(block)
    presets, columns = block["preset_status"], (block["crcs"], block["texts"])
    to_read = [file for file, preset in zip(files, presets, strict=True) if not preset]
    answers = read_listed(writer.folder, to_read)
    places = places_of([file.name for file in files], block)
    rows: list[Row] = []
    for place, preset, expected, text in zip(places, presets, *columns, strict=True):
        status, crc = str(preset), 0
        if not status:
            answer = next(answers)
            crc = zlib.crc32(answer) if isinstance(answer, bytes) else 0
            status = writer.write(place, answer, crc_or_none(expected), str(text))
        rows.append((str(block["file"]), place.name, crc, status))
    return {**_columns(rows), "pixels": np.zeros(len(rows), np.int64)}


def places_of(names: Iterable[str], columns: Mapping[str, Any]) -> list[Place]:
    """Return the places of images from their columns cutouts, tags and extents.

    An extent, (width, height), of zeros stands for None.
    """
    values = (columns[key] for key in ("cutouts", "tags", "extents"))
    return [
        Place(name, str(cutout), str(tag), (int(width), int(height)) if width else None)
        for name, cutout, tag, (width, height) in zip(names, *values, strict=True)
    ]


def _columns(rows: list[Row]) -> Columns:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return dict(zip(("file", "img", "crc32", "status"), columns, strict=True))


def _mask_of(batch: Columns, row: int) -> NDArray[np.uint8] | NDArray[np.bool_]:
    """Return the soft mask of an image, or the mask that a person has corrected."""
    if batch["status"][row] != CORRECTED:
        return np.asarray(batch["soft_mask"][row])
    text = rle.text_from_bounds(batch["correction"][row])
    return rle.decode(text, int(batch["height"][row]), int(batch["width"][row]))


def _decode_mask(text: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        return rle.decode(text, *size)
    except ValueError as error:
        raise BadImageError(f"row: {error}") from error
