"""Names of pictures in, their gray levels out: the map that reads.

The bytes of a picture never travel: open and decode happen in one task. Only what a GPU's engines
are to decode goes on as it is.
"""

import contextlib
import functools
import itertools
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import images, storage
from carvana_ray.data import quarantine
from carvana_ray.data.quarantine import OK
from carvana_ray.errors import BadImageError, FileMissingError, FileTooLargeError
from carvana_ray.images import validate as formats
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest.blocks import Columns

UNKNOWN = -1  # in a column of CRC-32
MOST_CODED = 2**20  # bytes of a JPEG that travels; one of 1280 x 1918 has 100,000
MAX_BYTES = 8 * 16 * 1918 * 1280  # more than `formats.MAX_PIXELS` take in any of the formats


@functools.cache  # once a process
def lower_priority() -> None:
    """Let those who feed a GPU, or start to, have the cores first: they are few, all wait for
    them."""
    os.nice(4)  # from Ray's own 15 for its workers: less than half the share of the others


def crc_or_none(crc: int) -> int | None:
    """Return a CRC-32 out of a column, or None where there is none."""
    return None if crc == UNKNOWN else int(crc)


def require_readable(answer: bytes | Exception) -> bytes:
    """Return a file that was listed, as `storage.read_each` yields it, or raise why it cannot be
    used. One that is gone or too large is a bad one; a fault of the network stays one."""
    if isinstance(answer, FileMissingError):
        raise BadImageError("missing: the file was there when the pictures were listed")
    if isinstance(answer, FileTooLargeError):
        raise BadImageError(f"too-large: more than {MAX_BYTES} bytes")
    if isinstance(answer, Exception):
        raise answer
    return answer


def require_size(found: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raise `BadPicture` if a picture is not of the (H, W) that it must have."""
    if tuple(found) != size:
        raise BadImageError(
            f"wrong-size: {found[0]} x {found[1]} (height x width), expected {size[0]} x {size[1]}"
        )


def block_row(
    file: str,
    names: Sequence[str],
    crcs: Mapping[str, int] | None = None,
    verdicts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the row that `load_pictures` takes.

    Args:
        file: a name for the block.
        names: of pictures.
        crcs: CRC-32 that a picture must have, where it is known.
        verdicts: status of pictures that must not be read.
    """
    return {
        "file": file,
        "names": list(names),
        "crcs": [(crcs or {}).get(name, UNKNOWN) for name in names],
        "verdicts": [(verdicts or {}).get(name, "") for name in names],
    }


def read_images(
    batch: Columns,
    *,
    folder: str,
    downscale: int,
    size: tuple[int, int] | None,
    blank: tuple[int, int],
    coded: float = 0.0,
) -> Columns:
    """Map a row of names to its pictures on the network's grid; a bad one is a row with a status.

    Args:
        batch: one row of `pictures_row`.
        folder: where they are.
        downscale: see `images.load_gray`.
        size: (H, W) that they must have, or None.
        blank: (H, W) to give a bad picture.
        coded: share of the pictures that are left to a GPU's engines if these can decode them
            (`formats.for_engines`); which ones follows from their names.

    Returns:
        columns [n]: file, place (from 0), count (n), img, status, crc32 (of the file's bytes as
        they were decoded), height, width, orientation (`formats.orientation_of`), and gray: uint8
        [n, h, w], or n arrays [h, w] of several sizes. With a share of `coded` there is a column
        ``coded``, and where it is true gray is the file itself, uint8 [1, length]. The status is
        `shards.OK`, the reason why the picture is bad, or `UNREACHABLE` and why: that is no fault
        of the picture.
    """
    row = dataset.single_row(batch)
    names = list(row["names"])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("height", "width", "orientation", "crc32", "status")
    }
    pictures = _Pictures(len(names))
    read = [not verdict for verdict in row["verdicts"]]
    uris = [storage.join(folder, name) for name in itertools.compress(names, read)]
    files = storage.read_many(uris, MAX_BYTES)
    gone = ""
    for name, crc, verdict in zip(names, row["crcs"], row["verdicts"], strict=True):
        crc32 = zlib.crc32(b"")
        found, orientation, status = size or blank, 1, str(verdict)
        gray: NDArray[np.uint8] | None = None
        as_it_is = False
        if gone:
            status = gone
        elif not verdict:
            try:
                data = require_readable(next(files))
                crc32 = zlib.crc32(data)
                formats.compare_crc(crc32, crc_or_none(crc))
                image = formats.open_image(data)  # once: its header costs 45 us
                found = image.height, image.width
                if size:
                    require_size(found, size)
                left = len(data) <= MOST_CODED and formats.left_to_engines(name, coded)
                as_it_is = left and formats.nvjpeg_can_decode(image)
                if as_it_is:
                    gray = np.frombuffer(data, np.uint8)[None]
                else:
                    gray = images.to_gray(image, downscale)
                orientation, status = formats.exif_orientation(image), OK
            except BadImageError as bad:
                found, status = size or blank, str(bad)
            except OSError as error:
                # The shard cannot be written without it; each of the others might take as long.
                status = gone = f"{quarantine.UNREACHABLE}: {error.strerror or error}"
        if gray is None:
            gray = np.zeros(images.grid_size(*found, downscale), dtype=np.uint8)
        pictures.add(gray, as_it_is)
        values = (*found, orientation, crc32, status)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return {
        "file": np.full(len(names), row["file"]),
        "place": np.arange(len(names)),
        "count": np.full(len(names), len(names)),
        "img": np.array(names),
        **pictures.columns(bool(coded)),
        **{name: np.array(column) for name, column in columns.items()},
    }


def read_images_low_priority(batch: Columns, **how: Any) -> Columns:
    """Map a row as `load_pictures` does, letting other processes of Ray have the cores first."""
    lower_priority()
    return read_images(batch, **how)


def read_crcs(batch: Columns, *, folder: str) -> Columns:
    """Map a row of names to ``img`` str [n] and ``crc32`` int64 [n] of the files as they are.

    A file that is gone is left out.
    """
    names, crcs = [], []
    asked = list(dataset.single_row(batch)["names"])
    files = storage.read_many([storage.join(folder, name) for name in asked], MAX_BYTES)
    for name, answer in zip(asked, files, strict=True):
        with contextlib.suppress(BadImageError):
            crcs.append(zlib.crc32(require_readable(answer)))
            names.append(name)
    return {"img": np.array(names, dtype=object), "crc32": np.array(crcs, dtype=np.int64)}


class _Pictures:
    """Pictures of a block, or files of pictures.

    Gray levels are copied as they come: kept one by one, they would take fresh pages of memory each
    time.
    """

    def __init__(self, count: int) -> None:
        self._count, self._used = count, 0
        self._stack = np.empty((0, 0, 0), np.uint8)
        self._all: list[NDArray[np.uint8]] = []
        self._coded: list[bool] = []

    def add(self, gray: NDArray[np.uint8], coded: bool) -> None:
        if not self._used and not coded:
            self._stack = np.empty((self._count, *gray.shape), np.uint8)
        if not coded and gray.shape == self._stack.shape[1:]:
            self._stack[self._used] = gray
            gray = self._stack[self._used]
            self._used += 1
        self._all.append(gray)
        self._coded.append(coded)

    def columns(self, coded: bool) -> Columns:
        gray = self._stack if self._used == self._count else dataset.stack_or_object(self._all)
        return {"gray": gray, **({"coded": np.array(self._coded)} if coded else {})}
