"""First map of prediction: listed images in, gray levels on the network's grid out.

A task decodes its images itself, so that encoded files stay out of Ray's object store. With
`--decode gpu` the files that nvJPEG can decode travel on to the GPU instead.
"""

import functools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import storage
from carvana_ray.data.corrections import correction_of, stored_file
from carvana_ray.data.quarantine import CORRECTED, CRASHED, OK, UNREACHABLE
from carvana_ray.errors import BadImageError, FileMissingError, FileTooLargeError
from carvana_ray.images.scale import load_network_gray, network_grid, training_scale
from carvana_ray.images.turns import turned_size
from carvana_ray.images.validate import (
    MAX_BYTES,
    compare_crc,
    exif_orientation,
    nvjpeg_can_decode,
    open_image,
)
from carvana_ray.stages.ingest.blocks import Columns, single_row, stack_or_object
from carvana_ray.stages.ingest.read_correction import CorrectionFile
from carvana_ray.storage import FileInfo

BLOCK_COLUMNS = "file", "names", "sizes", "versions", "crcs", "preset_status"
UNKNOWN = -1  # in a column of CRC-32
MAX_ENCODED_BYTES = 2**20  # of a JPEG sent to the GPU; one of 1280 x 1918 has 100,000

Gray = NDArray[np.uint8]


@dataclass(frozen=True)
class ReadOptions:
    """How to read the images of a job."""

    folder: str  # URI
    downscale: int  # of the model
    size: tuple[int, int] | None  # (H, W) that every image must have
    trained_size: tuple[int, int]  # (H, W) of the model's training images, and of a bad image
    keep_encoded: bool = False  # pass on the JPEG files that nvJPEG can decode
    whole_blocks: bool = True  # a block is of no use if one of its images cannot be reached
    low_priority: bool = False  # leave the CPUs to the processes that feed a GPU
    # URI of the corrected mask by image name, for all images whose version names a correction.
    corrections: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadResult:
    """One image after reading."""

    size: tuple[int, int]  # full size (H, W)
    status: str  # `OK`, `CORRECTED`, or the reason why there is no mask
    crc32: int  # of the file's bytes; 0 if they were not read
    orientation: int  # of EXIF, 1 to 8
    # Upright [h, w] on the network's grid, 0 x 0 for an encoded image; zero for a bad image and for
    # a corrected one, whose mask is known.
    gray: Gray
    encoded: bytes = b""  # the JPEG file if the GPU is to decode it
    correction: bytes = b""  # run bounds of the corrected mask


@functools.cache  # once a process
def lower_priority() -> None:
    """Give this process less CPU time than the few processes that feed a GPU."""
    os.nice(4)  # on top of Ray's 15 for its workers: less than half the CPU time of the others


def crc_or_none(crc: int) -> int | None:
    """Return a CRC-32 from a column, or None where the column holds `UNKNOWN`."""
    return None if crc == UNKNOWN else int(crc)


def read_listed(folder: str, entries: Sequence[FileInfo]) -> Iterator[bytes | Exception]:
    """Yield the result of `storage.read_many` for files of a folder, as they were listed."""
    uris = [storage.join(folder, entry.name) for entry in entries]
    return storage.read_many(uris, MAX_BYTES, expected=list(map(stored_file, entries)))


def require_readable(answer: bytes | Exception) -> bytes:
    """Return the bytes of a listed file from its element of `storage.read_many`.

    Raises:
        BadImageError: the file is missing or too large.
        OSError: storage failed; the image itself may be good.
    """
    if isinstance(answer, FileMissingError):
        raise BadImageError("missing: the file was there when the images were listed")
    if isinstance(answer, FileTooLargeError):
        raise BadImageError(f"too-large: more than {MAX_BYTES} bytes")
    if isinstance(answer, Exception):
        raise answer
    return answer


def require_size(size: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Raise `BadImageError` if the (H, W) of an image is not the expected one."""
    if tuple(size) != expected:
        raise BadImageError(
            f"wrong-size: {size[0]} x {size[1]} (height x width), "
            f"expected {expected[0]} x {expected[1]}"
        )


def file_columns(entries: Sequence[FileInfo], prefix: str = "") -> dict[str, list[Any]]:
    """Return listed files as columns of an input row, see `listed_files`."""
    return {
        f"{prefix}names": [entry.name for entry in entries],
        f"{prefix}sizes": [entry.size for entry in entries],
        f"{prefix}versions": [entry.version for entry in entries],
    }


def listed_files(row: Mapping[str, Any], prefix: str = "") -> list[FileInfo]:
    """Return the listed files of an input row with the columns of `file_columns`."""
    columns = (row[f"{prefix}{key}"] for key in ("names", "sizes", "versions"))
    return [FileInfo(str(n), int(size), str(v)) for n, size, v in zip(*columns, strict=True)]


def block_row(
    file: str,
    entries: Sequence[FileInfo],
    crcs: Mapping[str, int] = {},
    preset_status: Mapping[FileInfo, str] = {},
) -> dict[str, Any]:
    """Return the input row of `read_images` for one block.

    Args:
        file: name of the block.
        entries: its images, as they were listed. An image that has changed since is not read.
        crcs: expected CRC-32 by image name, where known.
        preset_status: status of images that must not be read.
    """
    return {
        "file": file,
        **file_columns(entries),
        "crcs": [crcs.get(entry.name, UNKNOWN) for entry in entries],
        "preset_status": [preset_status.get(entry, "") for entry in entries],
    }


def read_images(batch: Columns, options: ReadOptions) -> Columns:
    """Map a row of `block_row` to its images on the network's grid.

    A bad image is a row whose status gives the reason. With `options.whole_blocks` no other file
    is tried after one that cannot be reached: each try might take minutes. Other columns of the
    row, with a value for each image, travel on.

    Returns:
        columns [n]: file, row (0 to n - 1), rows (n), img, status (`OK`, `CORRECTED`, the reason
        why the image is bad, or `UNREACHABLE` and the reason), crc32, height and width (of the
        stored pixels), orientation, and image, upright: uint8 [n, h, w], or n arrays [h, w] of
        several sizes. With `options.keep_encoded` there is also encoded, bytes: the JPEG file where
        the GPU is to decode it (its image is 0 x 0). With `options.corrections` there is also
        correction, bytes: the run bounds of the mask of a corrected image, whose pixels are not
        decoded.
    """
    if options.low_priority:
        lower_priority()
    row = single_row(batch)
    count = len(row["names"])
    stack = np.empty((0, 0, 0), np.uint8)
    results: list[ReadResult] = []
    for index, result in enumerate(_read_all(row, options)):
        if not results:
            stack = np.empty((count, *result.gray.shape), np.uint8)
        if result.gray.shape == stack.shape[1:]:  # copied: its own array needs fresh pages
            stack[index] = result.gray
            result = replace(result, gray=stack[index])
        results.append(result)
    gray = [result.gray for result in results]
    one_size = {array.shape for array in gray} == {stack.shape[1:]}
    columns = {
        "file": np.full(count, row["file"]),
        "row": np.arange(count),
        "rows": np.full(count, count),
        "img": np.array(list(row["names"])),
        "image": stack if one_size else stack_or_object(gray),
        "height": np.array([result.size[0] for result in results]),
        "width": np.array([result.size[1] for result in results]),
        "orientation": np.array([result.orientation for result in results]),
        "crc32": np.array([result.crc32 for result in results]),
        "status": np.array([result.status for result in results]),
    }
    columns |= {name: np.array(list(row[name])) for name in row if name not in BLOCK_COLUMNS}
    if options.keep_encoded:
        columns["encoded"] = np.array([result.encoded for result in results], dtype=object)
    if options.corrections:
        columns["correction"] = np.array([result.correction for result in results], dtype=object)
    return columns


def read_crcs(batch: Columns, *, folder: str) -> Columns:
    """Map a row of `file_columns` to the CRC-32 of the files.

    Missing and oversized files are left out. After a file that cannot be reached no other is read.

    Returns:
        columns [n]: img, crc32 (int64) and problem: why the file cannot be reached, or "".
    """
    entries = listed_files(single_row(batch))
    rows: list[tuple[str, int, str]] = []
    for entry, answer in zip(entries, read_listed(folder, entries), strict=True):
        try:
            rows.append((entry.name, zlib.crc32(require_readable(answer)), ""))
        except BadImageError:
            continue
        except OSError as error:
            rows.append((entry.name, 0, f"{error.strerror or error}"))
            break
    return {
        "img": np.array([name for name, _, _ in rows], dtype=object),
        "crc32": np.array([crc for _, crc, _ in rows], dtype=np.int64),
        "problem": np.array([problem for _, _, problem in rows], dtype=object),
    }


def _read_all(row: Mapping[str, Any], options: ReadOptions) -> Iterator[ReadResult]:
    """Yield the images of a row of `block_row`."""
    entries, presets = listed_files(row), [str(status) for status in row["preset_status"]]
    to_read = [entry for entry, preset in zip(entries, presets, strict=True) if not preset]
    files, masks = read_listed(options.folder, to_read), _read_corrections(to_read, options)
    unreachable = ""
    for entry, crc, preset in zip(entries, row["crcs"], presets, strict=True):
        if unreachable or preset:
            result = _placeholder(unreachable or _blame(preset, entry, options), options)
        else:
            correction = next(masks) if correction_of(entry) else None
            result = _read_one(next(files), crc_or_none(crc), options, correction)
        if options.whole_blocks and result.status.startswith(UNREACHABLE):
            unreachable = result.status
        yield result


def _read_corrections(
    entries: Sequence[FileInfo], options: ReadOptions
) -> Iterator[CorrectionFile]:
    """Yield the corrected masks of those images that have one."""
    marked = [entry for entry in entries if correction_of(entry)]
    uris = [options.corrections[entry.name] for entry in marked]
    for entry, uri, answer in zip(marked, uris, storage.read_many(uris, MAX_BYTES), strict=True):
        yield CorrectionFile(uri, correction_of(entry), answer)


def _blame(status: str, entry: FileInfo, options: ReadOptions) -> str:
    """Return a status that names the correction of an image whose work killed its process."""
    if status.startswith(CRASHED) and correction_of(entry):
        return f"{status} (the image, or its correction {options.corrections[entry.name]})"
    return status


def _read_one(
    answer: bytes | Exception,
    crc: int | None,
    options: ReadOptions,
    correction: CorrectionFile | None = None,
) -> ReadResult:
    """Return an image, or a placeholder with the reason why it is bad or unreachable."""
    crc32 = 0
    try:
        data = require_readable(answer)
        crc32 = zlib.crc32(data)
        compare_crc(crc32, crc)
        image = open_image(data)  # once: parsing its header costs 45 us
        size = image.height, image.width
        if options.size:
            require_size(size, options.size)
        turn = exif_orientation(image)
        if correction:
            blank = _blank(turned_size(*size, turn), options)
            bounds = correction.run_bounds(size, turn)
            return ReadResult(size, CORRECTED, crc32, turn, blank, correction=bounds)
        usual = turn == 1 and training_scale(*size, options.trained_size) == 1
        small = options.keep_encoded and usual and len(data) <= MAX_ENCODED_BYTES
        if small and nvjpeg_can_decode(image):
            return ReadResult(size, OK, crc32, turn, np.empty((0, 0), np.uint8), data)
        gray = load_network_gray(image, options.downscale, options.trained_size, turn)
        return ReadResult(size, OK, crc32, turn, gray)
    except BadImageError as error:
        return _placeholder(str(error), options, crc32)
    except OSError as error:
        return _placeholder(f"{UNREACHABLE}: {error.strerror or error}", options, crc32)


def _placeholder(status: str, options: ReadOptions, crc32: int = 0) -> ReadResult:
    size = options.size or options.trained_size
    return ReadResult(size, status, crc32, orientation=1, gray=_blank(size, options))


def _blank(upright: tuple[int, int], options: ReadOptions) -> Gray:
    """Return zeros in place of an image of this (H, W)."""
    return np.zeros(network_grid(*upright, options.downscale, options.trained_size), np.uint8)
