"""The submission: merge shards into one CSV, and check one.

Both walk through the rows one by one: a file of 0.9 GB needs the memory of a shard (of each part of
the plan) and of the names.
"""

import contextlib
import csv
import gzip
import heapq
import io
import itertools
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO, TextIO

import numpy as np
import pyarrow as pa

from carvana_ray import carvana, rle, storage
from carvana_ray.errors import InputError
from carvana_ray.plan import Part

Row = tuple[str, str]
MAX_NAMED = 100  # faults of one kind that are listed; all are counted
# Characters of a line, and of a field: more than the most ragged mask of 1280 x 1918 has (12.3
# million), so that a file without line ends, or with a quote left open, cannot fill the memory.
LONGEST = 2**24
_LONGEST_NAME = 255  # as in a folder; of a fault's picture no more is listed

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by a spreadsheet
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, by "surrogateescape"


def rows_of(
    parts: Sequence[Part], read: Callable[[Part, int], pa.Table], keep: set
) -> Iterator[dict]:
    """Yield the rows of all shards, in order of name, each picture once.

    Args:
        parts: of the plan; of a picture that several parts plan, the one in `keep` counts.
        read: from part and number of a shard to its rows.
        keep: the catalogue's entries today.
    """

    def rows(part: Part) -> Iterator[tuple[str, int, dict]]:
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


def read_names(uri: str) -> list[str]:
    """Return the pictures that a ``sample_submission.csv`` lists, in its order.

    Raises:
        InputError: it is no such file.
    """
    csv.field_size_limit(LONGEST)  # a real submission may be given as the list
    with _open_csv(uri, errors="strict") as lines:
        rows = csv.reader(_Lines(lines), strict=True)
        header = tuple(next(rows, ()))
        names = [row[0] for row in rows if row] if header == carvana.HEADER else []
    if header != carvana.HEADER:
        raise InputError(f"{uri}: its first line must be {','.join(carvana.HEADER)}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{uri}: lists {len(twice)} pictures more than once, first {twice[0]}")
    return names


def write(
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
    raw: BinaryIO = packed or file  # type: ignore[assignment]
    text = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
    out = csv.writer(text, lineterminator="\n")
    out.writerow(carvana.HEADER)
    count = 0
    by_name = all(one <= other for one, other in itertools.pairwise(order))
    for row in rows if by_name else _reordered(rows, order, spool_folder):
        out.writerow(row)
        count += 1
    text.detach()  # flushes, and leaves the file open: it is the caller's
    if packed:
        packed.close()
    return count


def _reordered(rows: Iterable[Row], order: Sequence[str], folder: str | None) -> Iterator[Row]:
    """Yield rows in another order, through a file on disk and an index of 24 bytes a row."""
    starts = np.zeros(len(order), dtype=np.int64)
    lengths = np.zeros(len(order), dtype=np.int64)
    places = np.array(sorted(range(len(order)), key=order.__getitem__), dtype=np.int64)
    with tempfile.TemporaryFile(dir=folder) as spool:
        end = 0
        for place, (name, text) in zip(places, rows, strict=True):
            if name != order[place]:
                raise ValueError(f"a row of {name} came where that of {order[place]} is due")
            starts[place], lengths[place] = end, spool.write(text.encode())
            end += int(lengths[place])
        for name, start, length in zip(order, map(int, starts), map(int, lengths), strict=True):
            spool.seek(start)
            yield name, spool.read(length).decode()


@dataclass(frozen=True)
class Fault:
    """What is wrong with a submission.

    Attributes:
        fault: its name. Of the file: ``empty`` (no row), ``header``. Of the form of a line:
            ``encoding`` (no UTF-8, or a byte order mark), ``nul``, ``line-ends``, ``quotes``.
            Of a row: ``columns``, ``doubled``, ``foreign``, ``missing``, ``name`` (none of
            Kaggle's, or a formula to a spreadsheet), or one of `rle.parse`.
        img: the picture, where there is one; the first 255 characters.
        line: of the file, from 1, where the row begins; 0 for what is not there.
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

    LF and CR LF end a line; one blank line is a row too many. Holds one row and the names: two
    sets of those asked for, some 0.2 GB for a million, and none of those that are not.

    Args:
        lines: the file, open as text with ``newline=""`` and ``errors="surrogateescape"``.
        expected: the pictures that it must have; None: those that it has, by Kaggle's grammar.
        pixels: from a picture that is expected to its height times width.

    Raises:
        InputError: it is no CSV at all: its first line is no text, or a line is endless.
    """
    faults: list[Fault] = []
    counts: Counter = Counter()

    def fault(kind: str, img: str, line: int, detail: str) -> None:
        counts[kind] += 1
        if counts[kind] <= MAX_NAMED:
            faults.append(Fault(kind, img[:_LONGEST_NAME], line, detail))

    csv.field_size_limit(LONGEST)  # a ragged mask's runs exceed the 128 kB that csv allows
    wanted = None if expected is None else set(expected)
    seen: set[str] = set()
    records = _records(lines)
    _, header, form = next(records, (1, [], ""))
    for kind, detail in _header_faults(header, form):
        fault(kind, "", 1, detail)
    count = 0
    for line, row, form in records:
        count += 1
        name = row[0] if row else ""
        if form or len(row) != 2:
            kind, _, detail = form.partition(": ")
            fault(kind or "columns", name, line, detail or f"{len(row)} columns, expected 2")
        else:
            for kind, detail in _row_faults(name, row[1], wanted, pixels):
                fault(kind, name, line, detail)
        if name in seen:
            fault("doubled", name, line, "the picture has a row already")
        # Whatever else stands where a name should is a fault already, and may be long.
        if name in wanted if wanted is not None else carvana.KAGGLE_NAME.fullmatch(name):
            seen.add(name)
    if not count:
        fault("empty", "", 0, "there is no row")
    for name in expected or ():
        if name not in seen:
            fault("missing", name, 0, "the picture has no row")
    return count, faults, counts


def _header_faults(header: list[str], form: str) -> Iterator[tuple[str, str]]:
    """Yield (fault, detail) of the first line.

    Args:
        header: its fields.
        form: as `_records` gives it.

    Raises:
        InputError: it is no text.
    """
    kind, _, detail = form.partition(": ")
    if kind in ("encoding", "nul"):
        raise InputError(f"the first line has {detail}")
    if kind:
        yield kind, detail
    if header and header[0].startswith("\ufeff"):
        yield "encoding", "the file begins with a byte order mark, which would be part of a name"
        header = [header[0][1:], *header[1:]]
    if tuple(header) != carvana.HEADER:
        yield "header", f"{','.join(header)[:60]!r}, expected {','.join(carvana.HEADER)}"


def _row_faults(
    name: str, text: str, wanted: set[str] | None, pixels: Callable[[str], int]
) -> Iterator[tuple[str, str]]:
    """Yield (fault, detail) of a row of two fields; `wanted` and `pixels` as of `check`."""
    foreign = wanted is not None and name not in wanted
    if name.startswith(_FORMULA):
        yield "name", "a spreadsheet would run it as a formula"
    elif foreign:
        yield "foreign", "the picture is not among those asked for"
    elif wanted is None and not carvana.KAGGLE_NAME.fullmatch(name):
        yield "name", "not a name like 0004d4463b50_01.jpg"
    if foreign:
        return  # nobody knows its size
    try:
        rle.parse(text, pixels(name))
    except ValueError as error:
        kind, _, detail = str(error).partition(": ")
        yield kind, detail


class _Lines:
    """The lines of a file one by one, each of `LONGEST` characters at most.

    Attributes:
        number: of the last one given, from 1.
        last: its last two characters.
        first: the first characters of the first line since `first` was set to "".

    Raises:
        InputError: there is a longer one.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.number, self.last, self.first = 0, "", ""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LONGEST:
            raise InputError(f"line {self.number} has more than {LONGEST} characters")
        self.last, self.first = line[-2:], self.first or line[: _LONGEST_NAME + 2]
        return line


def _records(lines: TextIO) -> Iterator[tuple[int, list[str], str]]:
    """Yield (first line's number, fields, ``fault: detail`` of its form or "") of each record."""
    source = _Lines(lines)
    rows = csv.reader(source, strict=True)
    while True:
        begin, source.first = source.number + 1, ""
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on with the line after that
            yield begin, [source.first.split(",")[0].strip('"')], f"quotes: {error}"
            continue
        form = ""
        if source.number > begin:
            form = f"quotes: the row swallows what follows, up to line {source.number}"
        elif any("\0" in field for field in row):
            form = "nul: a byte of value 0"
        elif any(not field.isascii() and _UNDECODED.search(field) for field in row):
            form = "encoding: bytes that are no UTF-8"
        elif source.last.endswith("\r"):
            form = "line-ends: CR alone, expected LF or CR LF"
        yield begin, row, form


def check_file(
    uri: str, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[dict], dict[str, int]]:
    """Return `check` of a file, .csv or .csv.gz, as plain values.

    Raises:
        InputError: there is no such file, or it is no CSV at all, or its gzip is damaged.
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
def _open_csv(uri: str, errors: str = "surrogateescape") -> Iterator[TextIO]:
    """Open a .csv or .csv.gz as text; `errors` says what becomes of bytes that are no UTF-8.

    Raises:
        InputError: there is no such file; or what reads it in the block finds no text, or no CSV.
    """
    with storage.reading(uri) as file:
        try:
            yield _as_text(file, uri.endswith(".gz"), errors)
        except (InputError, UnicodeError, EOFError, OSError, zlib.error, csv.Error) as error:
            raise InputError(f"{uri}: not a CSV file: {error}") from error


def _as_text(file: BinaryIO, packed: bool, errors: str = "surrogateescape") -> io.TextIOWrapper:
    raw = gzip.GzipFile(fileobj=file) if packed else file
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, newline="")
