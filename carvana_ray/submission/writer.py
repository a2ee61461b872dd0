"""The submission: rows of shards become one CSV, in the order of Kaggle's list.

Rows pass through one by one: a file of 0.9 GB needs memory for one shard of each plan part and for
the names. `carvana_ray.submission.validate` finds the faults of a submission.
"""

import contextlib
import csv
import gzip
import heapq
import io
import itertools
import operator
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from carvana_ray.data import csv_reader
from carvana_ray.data.csv_reader import Row
from carvana_ray.data.layout import CSV_HEADER
from carvana_ray.storage import READ_AHEAD, FileInfo
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.validate import SubmissionFault, validate

ReadShard = Callable[[PlanPart, int], pa.Table]  # (part, number of the shard) -> rows
_LINES_PER_WRITE = 64  # about 0.6 MB


def iter_rows(
    parts: Sequence[PlanPart], read: ReadShard, keep: set[FileInfo]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the catalog's images, `keep`, in order of name, one row per image.

    If several parts plan an image, `keep` has the version to use.
    """

    def part_rows(part: PlanPart) -> Iterator[tuple[str, int, dict[str, Any]]]:
        for shard in range(part.shards):
            images = part.shard(shard)
            if keep.isdisjoint(images):
                continue
            # A single expression, so that the table and unused rows are freed before the first row.
            yield from [
                (image.name, part.number, row)
                for image, row in zip(images, read(part, shard).to_pylist(), strict=True)
                if image in keep
            ]

    for _, _, row in heapq.merge(*map(part_rows, parts)):
        yield row


@contextlib.contextmanager
def prefetch_shards(
    parts: Sequence[PlanPart], read: ReadShard, keep: set[FileInfo]
) -> Iterator[ReadShard]:
    """Provide a `read` for `iter_rows` that loads the next `READ_AHEAD` shards in threads."""
    upcoming = iter(_read_order(parts, keep))
    futures: dict[tuple[int, int], Future[pa.Table]] = {}
    pool = ThreadPoolExecutor(READ_AHEAD)

    def submit(count: int) -> None:
        for part, shard in itertools.islice(upcoming, count):
            futures[part.number, shard] = pool.submit(read, part, shard)

    def read_ahead(part: PlanPart, shard: int) -> pa.Table:
        submit(1)
        return futures.pop((part.number, shard)).result()

    try:
        submit(READ_AHEAD)
        yield read_ahead
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read_order(parts: Sequence[PlanPart], keep: set[FileInfo]) -> list[tuple[PlanPart, int]]:
    """Return (part, number of the shard) in the order in which `iter_rows` reads them.

    `iter_rows` reads a part's next shard after it yields the last row of the one before, so that
    row's name is the sort key. On ties the parts keep their order.
    """
    order: list[tuple[str, PlanPart, int]] = []
    for part in parts:
        previous = ""
        for shard in range(part.shards):
            if names := [image.name for image in part.shard(shard) if image in keep]:
                order.append((previous, part, shard))
                previous = names[-1]
    return [(part, shard) for _, part, shard in sorted(order, key=operator.itemgetter(0))]


def write_submission(
    file: BinaryIO,
    rows: Iterable[Row],
    order: Sequence[str],
    compress: bool,
    spool_folder: str | None = None,
) -> int:
    """Write a submission to an open file.

    Args:
        file: a binary file, at its start.
        rows: (image, run-length text) of each image of `order` once, in order of name.
        order: names of the images, in the order of the file's rows.
        compress: whether to compress with gzip.
        spool_folder: folder of a temporary file that holds all rows, uncompressed, if `order` is
            not sorted by name. None uses the system's folder, which may be a small one in memory.

    Returns:
        The number of rows.

    Raises:
        ValueError: `order` is not sorted by name, and `rows` are not its images.
    """
    out = file
    if compress:  # without a file name and a time, so that equal rows give equal bytes
        out = gzip.GzipFile("", "wb", 6, file, mtime=0)  # type: ignore[assignment]
    is_sorted = all(name <= following for name, following in itertools.pairwise(order))
    lines = map(_format_line, rows) if is_sorted else _reorder(rows, order, spool_folder)
    out.write(_format_line(CSV_HEADER))
    count = 0
    while chunk := list(itertools.islice(lines, _LINES_PER_WRITE)):
        out.write(b"".join(chunk))
        count += len(chunk)
    if compress:
        out.close()
    return count


def _format_line(row: Row) -> bytes:
    """Return the line that `csv` writes for a row."""
    # Only special characters need `csv`, which takes 100 us for the runs of a mask.
    if not any(special in cell for cell in row for special in ',"\r\n'):
        return ",".join(row).encode() + b"\n"
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode()


def _reorder(rows: Iterable[Row], order: Sequence[str], folder: str | None) -> Iterator[bytes]:
    """Yield lines in the given order, by way of a temporary file and an index in memory."""
    starts = np.zeros(len(order), dtype=np.int64)
    lengths = np.zeros(len(order), dtype=np.int64)
    by_name = np.array(sorted(range(len(order)), key=order.__getitem__), dtype=np.int64)
    with tempfile.TemporaryFile(dir=folder) as spool:
        end = 0
        for index, row in zip(by_name, rows, strict=True):
            if row[0] != order[index]:
                raise ValueError(f"the next row is of {row[0]}, expected {order[index]}")
            starts[index], lengths[index] = end, spool.write(_format_line(row))
            end += int(lengths[index])
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            spool.seek(start)
            yield spool.read(length)


def validate_written(
    file: BinaryIO, compressed: bool, expected: Sequence[str], pixels: Callable[[str], int]
) -> list[SubmissionFault]:
    """Return the faults of the submission that `write_submission` wrote to a file still open."""
    file.flush()
    file.seek(0)
    _, faults, _ = validate(csv_reader.gunzip_if(file, compressed), expected, pixels)
    return faults
