"""The submission: merge shards into one CSV, and check one.

Both walk through the rows one by one: a file of 0.9 GB needs the memory of a shard.
"""

import contextlib
import csv
import gzip
import heapq
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO, TextIO

import pyarrow as pa

from carvana_ray import carvana, rle, storage
from carvana_ray.errors import InputError
from carvana_ray.shards import Part

Row = tuple[str, str]
MAX_NAMED = 100  # faults of one kind that are listed; all are counted


def rows_of(parts: Sequence[Part], read: Callable[[str], pa.Table], keep: set) -> Iterator[dict]:
    """Yield the rows of all shards, in order of name, each picture once.

    Args:
        parts: of the plan; of a picture that several parts plan, the one in `keep` counts.
        read: from shard name to rows.
        keep: the catalogue's entries today.
    """

    def rows(part: Part) -> Iterator[tuple[str, int, dict]]:
        for shard in range(part.shards):
            entries = part.shard(shard)
            if not any(entry in keep for entry in entries):
                continue
            table = read(part.shard_name(shard))
            for entry, row in zip(entries, table.to_pylist(), strict=True):
                if entry in keep:
                    yield entry.name, part.number, row

    for _, _, row in heapq.merge(*map(rows, parts)):
        yield row


def read_names(uri: str) -> list[str]:
    """Return the pictures that a ``sample_submission.csv`` lists, in its order.

    Raises:
        InputError: it is no such file.
    """
    csv.field_size_limit(sys.maxsize)  # also where a real submission is given as the list
    with _open_csv(uri) as lines:
        rows = csv.reader(lines)
        if tuple(next(rows, ())) != carvana.HEADER:
            raise InputError(f"{uri}: its first line must be {','.join(carvana.HEADER)}")
        names = [row[0] for row in rows if row]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{uri}: lists {len(twice)} pictures more than once, first {twice[0]}")
    return names


def write(file: BinaryIO, rows: Iterable[Row], order: Sequence[str], compress: bool) -> int:
    """Write a submission to an open file; return the number of rows.

    Args:
        file: binary, at its start.
        rows: (picture, runs), each picture of `order` once, in order of name.
        order: the pictures, in the order that the file shall have.
        compress: with gzip; the same rows always give the same bytes.
    """
    # The header of gzip holds a name and a time; without them the same rows are the same bytes.
    packed = gzip.GzipFile("", "wb", 6, file, mtime=0) if compress else None
    raw: BinaryIO = packed or file  # type: ignore[assignment]
    text = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
    out = csv.writer(text, lineterminator="\n")
    out.writerow(carvana.HEADER)
    count = 0
    for row in rows if list(order) == sorted(order) else _reordered(rows, order):
        out.writerow(row)
        count += 1
    text.detach()  # flushes, and leaves the file open: it is the caller's
    if packed:
        packed.close()
    return count


def _reordered(rows: Iterable[Row], order: Sequence[str]) -> Iterator[Row]:
    """Yield rows in another order, through a file on disk and an index of places."""
    with tempfile.TemporaryFile() as spool:
        places: dict[str, tuple[int, int]] = {}
        for name, text in rows:
            places[name] = (spool.tell(), spool.write(text.encode()))
        for name in order:
            start, length = places[name]
            spool.seek(start)
            yield name, spool.read(length).decode()


@dataclass(frozen=True)
class Fault:
    """What is wrong with a submission.

    Attributes:
        fault: its name: ``header``, ``columns``, ``missing``, ``doubled``, ``foreign``, ``name``,
            or one of `rle.parse`.
        img: the picture, where there is one.
        line: of the file, from 1; 0 for what is not there.
        detail: a sentence.
    """

    fault: str
    img: str
    line: int
    detail: str


def check(
    lines: TextIO, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[Fault], Counter]:
    """Return (rows, faults, faults by name) of a submission; at most 100 of a name are listed.

    Args:
        lines: the file, open as text with ``newline=""``.
        expected: the pictures that it must have; None: those that it has, by Kaggle's grammar.
        pixels: from a picture that is expected to its height times width.
    """
    faults: list[Fault] = []
    counts: Counter = Counter()

    def fault(kind: str, img: str, line: int, detail: str) -> None:
        counts[kind] += 1
        if counts[kind] <= MAX_NAMED:
            faults.append(Fault(kind, img, line, detail))

    csv.field_size_limit(sys.maxsize)  # a ragged mask's runs exceed the 128 kB that csv allows
    wanted = None if expected is None else set(expected)
    seen: set[str] = set()
    rows = csv.reader(lines)
    header = next(rows, [])
    if tuple(header) != carvana.HEADER:
        fault("header", "", 1, f"{','.join(header)[:60]!r}, expected {','.join(carvana.HEADER)}")
    count = 0
    for row in rows:
        count += 1
        line = rows.line_num
        if len(row) != 2:
            fault("columns", row[0] if row else "", line, f"{len(row)} columns, expected 2")
            continue
        name, text = row
        if name in seen:
            fault("doubled", name, line, "the picture has a row already")
        seen.add(name)
        if wanted is not None and name not in wanted:
            fault("foreign", name, line, "the picture is not among those asked for")
            continue
        if wanted is None and not carvana.KAGGLE_NAME.fullmatch(name):
            fault("name", name, line, "not a name like 0004d4463b50_01.jpg")
        try:
            rle.parse(text, pixels(name))
        except ValueError as error:
            kind, _, detail = str(error).partition(": ")
            fault(kind, name, line, detail)
    for name in expected or ():
        if name not in seen:
            fault("missing", name, 0, "the picture has no row")
    return count, faults, counts


def check_file(
    uri: str, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[dict], dict[str, int]]:
    """Return `check` of a file, .csv or .csv.gz, as plain values.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    with _open_csv(uri) as lines:
        rows, faults, counts = check(lines, expected, pixels)
    return rows, [asdict(fault) for fault in faults], dict(counts)


def check_written(
    file: BinaryIO, packed: bool, expected: Sequence[str], pixels: Callable[[str], int]
) -> list[Fault]:
    """Return the faults of what `write` has written to a file that is still open."""
    file.flush()
    file.seek(0)
    text = _as_text(file, packed)
    _, faults, _ = check(text, expected, pixels)
    text.detach()  # leaves the file open: it is the caller's
    return faults


@contextlib.contextmanager
def _open_csv(uri: str) -> Iterator[TextIO]:
    """Open a .csv or .csv.gz as text.

    Raises:
        InputError: there is no such file; or what reads it in the block finds no text, or no CSV.
    """
    with storage.reading(uri) as file:
        try:
            yield _as_text(file, uri.endswith(".gz"))
        except (UnicodeDecodeError, EOFError, OSError, csv.Error) as error:
            raise InputError(f"{uri}: not a CSV file: {error}") from error


def _as_text(file: BinaryIO, packed: bool) -> io.TextIOWrapper:
    raw = gzip.GzipFile(fileobj=file) if packed else file
    return io.TextIOWrapper(raw, encoding="utf-8", newline="")
