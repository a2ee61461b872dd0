"""The submission: rows of shards into one CSV, in the order that Kaggle lists the pictures.

The rows go through one by one: a file of 0.9 GB needs the memory of a shard (of each part of the
plan) and of the names. What is wrong with a submission `carvana_ray.faults` says.
"""

import contextlib
import csv
import gzip
import heapq
import io
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from carvana_ray.data import csv_reader as records
from carvana_ray.data import layout as carvana
from carvana_ray.data.csv_reader import Row
from carvana_ray.submission import validate as faults
from carvana_ray.submission.plan import PlanPart

ReadShard = Callable[[PlanPart, int], pa.Table]  # from part and number of a shard to its rows
_SHARDS_AHEAD = 8  # shards, of 2.3 MB each: what a store on a network needs to hide its latency
_LINES_PER_WRITE = 64  # lines that are written at a time, some 0.6 MB


def iter_rows(parts: Sequence[PlanPart], read: ReadShard, keep: set) -> Iterator[dict]:
    """Yield the rows of all shards, in order of name, each picture once.

    Args:
        parts: of the plan; of a picture that several parts plan, the one in `keep` counts.
        read: from part and number of a shard to its rows.
        keep: the catalogue's entries today.
    """

    def rows(part: PlanPart) -> Iterator[tuple[str, int, dict]]:
        for shard in range(part.shards):
            entries = part.shard(shard)
            if not any(entry in keep for entry in entries):
                continue
            # One expression: of the table and of the rows that do not count nothing is held on to.
            yield from [
                (entry.name, part.number, row)
                for entry, row in zip(entries, read(part, shard).to_pylist(), strict=True)
                if entry in keep
            ]

    for _, _, row in heapq.merge(*map(rows, parts)):
        yield row


@contextlib.contextmanager
def prefetch_shards(parts: Sequence[PlanPart], read: ReadShard, keep: set) -> Iterator[ReadShard]:
    """Give a `read` for `rows_of` that has the next shards already, read by threads meanwhile.

    A part's next shard is asked for after the last row of the one before, so by the names of those
    rows all are in order.

    Args:
        parts, read, keep: as of `rows_of`.
    """
    asked: list[tuple[str, int, PlanPart, int]] = []
    for place, part in enumerate(parts):
        last = ""
        for shard in range(part.shards):
            if kept := [entry.name for entry in part.shard(shard) if entry in keep]:
                asked.append((last, place, part, shard))
                last = kept[-1]
    following = iter(sorted(asked, key=lambda one: one[:2]))
    under_way: dict[tuple[int, int], Future[pa.Table]] = {}
    pool = ThreadPoolExecutor(_SHARDS_AHEAD)

    def more(count: int) -> None:
        for *_, part, shard in itertools.islice(following, count):
            under_way[part.number, shard] = pool.submit(read, part, shard)

    def taken(part: PlanPart, shard: int) -> pa.Table:
        more(1)
        return under_way.pop((part.number, shard)).result()

    try:
        more(_SHARDS_AHEAD)
        yield taken
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def write_submission(
    file: BinaryIO,
    rows: Iterable[Row],
    order: Sequence[str],
    compress: bool,
    spool_folder: str | None = None,
) -> int:
    """Write a submission to an open file; return the number of rows.

    Args:
        file: binary, at its start.
        rows: (picture, runs), each picture of `order` once, in order of name.
        order: the pictures, in the order that the file shall have.
        compress: with gzip; the same rows always give the same bytes.
        spool_folder: where all rows are kept meanwhile if `order` is not that of names: as much
            again as the file, not compressed. None: the system's folder for such files, which may
            be a small one in memory.

    Raises:
        ValueError: `order` is not that of names, and `rows` are not those of `order`.
    """
    # The header of gzip holds a name and a time; without them the same rows are the same bytes.
    packed = gzip.GzipFile("", "wb", 6, file, mtime=0) if compress else None
    out: BinaryIO = packed or file  # type: ignore[assignment]
    by_name = all(one <= other for one, other in itertools.pairwise(order))
    lines = map(_line, rows) if by_name else _reordered(rows, order, spool_folder)
    out.write(_line(carvana.CSV_HEADER))
    count = 0
    while some := list(itertools.islice(lines, _LINES_PER_WRITE)):
        out.write(b"".join(some))
        count += len(some)
    if packed:
        packed.close()
    return count


def _line(row: Row) -> bytes:
    """Return the line of a row as `csv` writes it, which takes 100 us for runs."""
    if not any(odd in cell for cell in row for odd in ',"\r\n'):
        return ",".join(row).encode() + b"\n"
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode()


def _reordered(rows: Iterable[Row], order: Sequence[str], folder: str | None) -> Iterator[bytes]:
    """Yield lines in another order, through a file on disk and an index of 24 bytes a row."""
    starts = np.zeros(len(order), dtype=np.int64)
    lengths = np.zeros(len(order), dtype=np.int64)
    places = np.array(sorted(range(len(order)), key=order.__getitem__), dtype=np.int64)
    with tempfile.TemporaryFile(dir=folder) as spool:
        end = 0
        for place, row in zip(places, rows, strict=True):
            if row[0] != order[place]:
                raise ValueError(f"a row of {row[0]} came where that of {order[place]} is due")
            starts[place], lengths[place] = end, spool.write(_line(row))
            end += int(lengths[place])
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            spool.seek(start)
            yield spool.read(length)


def validate_written(
    file: BinaryIO, packed: bool, expected: Sequence[str], pixels: Callable[[str], int]
) -> list[faults.SubmissionFault]:
    """Return the faults of what `write` has written to a file that is still open."""
    file.flush()
    file.seek(0)
    _, found, _ = faults.validate(records.gunzip_if(file, packed), expected, pixels)
    return found
