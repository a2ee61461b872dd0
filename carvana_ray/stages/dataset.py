"""Pictures into Ray Data: one row of the input is one block of pictures of the output.

Ray Data cuts and joins blocks by bytes; here a block means something (a shard, a chunk of the
cache, one worker's part of a batch), so each input row names the pictures of one block, and the
first map reads and decodes them. The bytes of a picture never travel: open and decode happen in one
task.
"""

import contextlib
import functools
import itertools
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from carvana_ray import formats, images, storage
from carvana_ray.errors import BadPicture, Missing, TooLarge
from carvana_ray.shards import OK

Columns = dict[str, Any]
UNKNOWN = -1  # in a column of CRC-32
UNREACHABLE = "unreachable"
MOST_CODED = 2**20  # bytes of a JPEG that travels; one of 1280 x 1918 has 100,000
MAX_BYTES = 8 * 16 * 1918 * 1280  # more than `formats.MAX_PIXELS` take in any of the formats
RETRIES = 3  # of a task whose process dies; Ray Data's own default is without end


def from_blocks(rows: list[dict[str, Any]]) -> ray.data.Dataset:
    """Return a data set of one block a row, whose blocks stay whole."""
    return whole(ray.data.from_items(rows, override_num_blocks=len(rows)))


def whole(blocks: ray.data.Dataset) -> ray.data.Dataset:
    """Return a data set that Ray Data does not cut above its usual size of 128 MiB a block.

    The maps that follow inherit this.
    """
    blocks.context.target_max_block_size = None
    return blocks


def only_row(batch: Columns) -> dict[str, Any]:
    """Return the only row of a batch."""
    (length,) = {len(column) for column in batch.values()}
    if length != 1:
        raise RuntimeError(f"a block of {length} rows where one row must stand for one block")
    return {name: column[0] for name, column in batch.items()}


def load_pairs(
    batch: Columns, *, pictures: str, masks: str, downscale: int, size: tuple[int, int]
) -> Columns:
    """Map a row of names to its pictures and masks on the network's grid.

    Args:
        batch: one row of `pairs_row`.
        pictures, masks: their folders.
        downscale: see `images.load_gray`.
        size: (H, W) that all must have.

    Returns:
        ``gray`` uint8 [n, h, w], ``share`` uint8 [n, h, w], and ``error`` str [n], empty where all
        is well: a wrong file is named once all have been read, so that one run finds them all. A
        file that is `UNREACHABLE` is no wrong one.
    """
    row = only_row(batch)
    names = [pair.split("/") for pair in row["pairs"]]
    h, w = images.grid(*size, downscale)
    gray = np.zeros((len(names), h, w), dtype=np.uint8)
    share = np.zeros_like(gray)
    error = [""] * len(names)
    uris = [
        storage.join(folder, name)
        for pair in names
        for folder, name in zip((pictures, masks), pair, strict=True)
    ]
    files = storage.read_each(uris, MAX_BYTES)
    for place, (picture, mask) in enumerate(names):
        name = picture
        answers = next(files), next(files)
        try:
            data = listed(answers[0])
            formats.check_crc(data, _known(row["picture_crcs"][place]))
            image = formats.open_picture(data)
            _same_size((image.height, image.width), size)
            gray[place] = images.gray_of(image, downscale)
            name = mask
            data = listed(answers[1])
            formats.check_crc(data, _known(row["mask_crcs"][place]))
            truth = images.load_mask(data)
            _same_size(truth.shape, size)
            share[place] = images.shrink_mask(truth, downscale)
        except BadPicture as bad:
            error[place] = f"{name}: {bad}"
        except OSError as gone:
            error[place] = f"{name}: {UNREACHABLE}: {gone.strerror or gone}"
            break  # the block is of no use without it; each of the others might take as long
    return {"gray": gray, "share": share, "error": np.array(error)}


def load_pairs_last(batch: Columns, **how: Any) -> Columns:
    """Map a row as `load_pairs` does, letting other processes of Ray have the cores first."""
    step_back()
    return load_pairs(batch, **how)


@functools.cache  # once a process
def step_back() -> None:
    """Let those who feed a GPU, or start to, have the cores first: they are few, all wait for
    them."""
    os.nice(4)  # from Ray's own 15 for its workers: less than half the share of the others


def pairs_row(pairs: Sequence[tuple[str, str]], crcs: Mapping[str, int]) -> dict[str, Any]:
    """Return the row that `load_pairs` takes for some (picture, mask) file names."""
    return {
        "pairs": ["/".join(pair) for pair in pairs],
        "picture_crcs": [crcs.get(picture, UNKNOWN) for picture, _ in pairs],
        "mask_crcs": [crcs.get(mask, UNKNOWN) for _, mask in pairs],
    }


def _known(crc: int) -> int | None:
    return None if crc == UNKNOWN else int(crc)


def listed(answer: bytes | Exception) -> bytes:
    """Return a file that was listed, as `storage.read_each` yields it, or raise why it cannot be
    used. One that is gone or too large is a bad one; a fault of the network stays one."""
    if isinstance(answer, Missing):
        raise BadPicture("missing: the file was there when the pictures were listed")
    if isinstance(answer, TooLarge):
        raise BadPicture(f"too-large: more than {MAX_BYTES} bytes")
    if isinstance(answer, Exception):
        raise answer
    return answer


def _same_size(found: tuple[int, ...], size: tuple[int, int]) -> None:
    if tuple(found) != size:
        raise BadPicture(
            f"wrong-size: {found[0]} x {found[1]} (height x width), expected {size[0]} x {size[1]}"
        )


def pictures_row(
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


def load_pictures(
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
    row = only_row(batch)
    names = list(row["names"])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("height", "width", "orientation", "crc32", "status")
    }
    pictures = _Pictures(len(names))
    read = [not verdict for verdict in row["verdicts"]]
    uris = [storage.join(folder, name) for name in itertools.compress(names, read)]
    files = storage.read_each(uris, MAX_BYTES)
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
                data = listed(next(files))
                crc32 = zlib.crc32(data)
                formats.compare_crc(crc32, _known(crc))
                image = formats.open_picture(data)  # once: its header costs 45 us
                found = image.height, image.width
                if size:
                    _same_size(found, size)
                left = len(data) <= MOST_CODED and formats.left_to_engines(name, coded)
                as_it_is = left and formats.for_engines(image)
                if as_it_is:
                    gray = np.frombuffer(data, np.uint8)[None]
                else:
                    gray = images.gray_of(image, downscale)
                orientation, status = formats.turn_of(image), OK
            except BadPicture as bad:
                found, status = size or blank, str(bad)
            except OSError as error:
                # The shard cannot be written without it; each of the others might take as long.
                status = gone = f"{UNREACHABLE}: {error.strerror or error}"
        if gray is None:
            gray = np.zeros(images.grid(*found, downscale), dtype=np.uint8)
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


def load_pictures_last(batch: Columns, **how: Any) -> Columns:
    """Map a row as `load_pictures` does, letting other processes of Ray have the cores first."""
    step_back()
    return load_pictures(batch, **how)


def read_crcs(batch: Columns, *, folder: str) -> Columns:
    """Map a row of names to ``img`` str [n] and ``crc32`` int64 [n] of the files as they are.

    A file that is gone is left out.
    """
    names, crcs = [], []
    asked = list(only_row(batch)["names"])
    files = storage.read_each([storage.join(folder, name) for name in asked], MAX_BYTES)
    for name, answer in zip(asked, files, strict=True):
        with contextlib.suppress(BadPicture):
            crcs.append(zlib.crc32(listed(answer)))
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
        gray = self._stack if self._used == self._count else _objects(self._all)
        return {"gray": gray, **({"coded": np.array(self._coded)} if coded else {})}


def stack(grays: list[NDArray[np.uint8]]) -> NDArray:
    """Return arrays of one shape as [n, h, w], of several as an array of objects [n]."""
    if len({gray.shape for gray in grays}) == 1:
        return np.stack(grays)
    return _objects(grays)


def _objects(arrays: list[NDArray[np.uint8]]) -> NDArray:
    result = np.empty(len(arrays), dtype=object)
    for place, array in enumerate(arrays):  # not `[:]`, which takes arrays of one shape apart
        result[place] = array
    return result


def standardize(batch: Columns) -> Columns:
    """Map ``image`` uint8 [n, h, w] to float32, by `images.standardize`."""
    return {**batch, "image": images.standardize(batch["image"])}
