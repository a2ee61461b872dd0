"""What is wrong with a submission: each fault by its name, its picture and its line.

For files of any origin, those written here and those of strangers: whatever the bytes are, the
answer is a list of faults or one `InputError`. The rows are read one by one: a file of 0.9 GB needs
the memory of a row and of the names.
"""

import contextlib
import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, TextIO

from carvana_ray import carvana, rle, storage
from carvana_ray.errors import InputError

MAX_NAMED = 100  # faults of one kind that are listed; all are counted
# Characters of a line, and of a field: more than the most ragged mask of 1280 x 1918 has (12.3
# million), so that a file without line ends, or with a quote left open, cannot fill the memory.
LONGEST = 2**24
_BLOCK = 2**20  # bytes that are read at a time
_LONGEST_NAME = 255  # as in a folder; of a fault's picture no more is listed

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by a spreadsheet
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, by "surrogateescape"


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


Record = tuple[int, list[str], str]  # line where it begins, fields, ``fault: detail`` of its form


def check(
    file: BinaryIO, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[Fault], Counter]:
    """Return (rows, faults, faults by name) of a submission; at most 100 of a name are listed.

    LF and CR LF end a line; one blank line is a row too many. Holds a megabyte of rows, or one row
    that is longer, and the names: two sets of those asked for, some 0.2 GB for a million, and none
    of those that are not.

    Args:
        file: the bytes of the CSV, from their start.
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

    records = _records(file)
    first: list[Record] = next(records, [(1, [], "")])
    _, header, form = first.pop(0)
    for kind, detail in _header_faults(header, form):
        fault(kind, "", 1, detail)
    count = 0
    for block in itertools.chain([first], records):
        sound = len(block) > 1 and _are_sound(block, wanted, pixels)
        for line, row, form in block:
            count += 1
            name = row[0] if row else ""
            if form or len(row) != 2:
                kind, _, detail = form.partition(": ")
                fault(kind or "columns", name, line, detail or f"{len(row)} columns, expected 2")
            else:
                for kind, detail in _name_faults(name, wanted):
                    fault(kind, name, line, detail)
                if not sound and (wanted is None or name in wanted):  # else nobody knows its size
                    for kind, detail in _mask_faults(row[1], pixels(name)):
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


def _are_sound(
    block: Sequence[Record], wanted: set[str] | None, pixels: Callable[[str], int]
) -> bool:
    """Return whether no row of two fields has a mask with a fault; False also where it may be."""
    masks = [
        (row[1], pixels(row[0]))
        for _, row, form in block
        if len(row) == 2 and not form and (wanted is None or row[0] in wanted)
    ]
    return rle.are_sound([text for text, _ in masks], [size for _, size in masks])


def _name_faults(name: str, wanted: set[str] | None) -> Iterator[tuple[str, str]]:
    """Yield (fault, detail) of a row's name; `wanted` as of `check`."""
    if name.startswith(_FORMULA):
        yield "name", "a spreadsheet would run it as a formula"
    elif wanted is not None and name not in wanted:
        yield "foreign", "the picture is not among those asked for"
    elif wanted is None and not carvana.KAGGLE_NAME.fullmatch(name):
        yield "name", "not a name like 0004d4463b50_01.jpg"


def _mask_faults(text: str, pixels: int) -> Iterator[tuple[str, str]]:
    """Yield (fault, detail) of a row's runs."""
    try:
        rle.parse(text, pixels)
    except ValueError as error:
        kind, _, detail = str(error).partition(": ")
        yield kind, detail


def check_file(
    uri: str, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[dict], dict[str, int]]:
    """Return `check` of a file, .csv or .csv.gz, as plain values.

    Raises:
        InputError: there is no such file, or it cannot be opened, or it is no CSV at all, or its
            gzip is damaged.
    """
    with _open(uri) as file:
        rows, faults, counts = check(file, expected, pixels)
    return rows, [asdict(fault) for fault in faults], dict(counts)


class Lines:
    """The lines of a file one by one, each of `LONGEST` characters at most.

    Attributes:
        number: of the last one given, from 1; at the start, of the line before the file's first.
        last: its last two characters.
        first: the first characters of the first line since `first` was set to "".

    Raises:
        InputError: there is a longer one.
    """

    def __init__(self, file: TextIO, number: int = 0) -> None:
        self._file = file
        self.number, self.last, self.first = number, "", ""

    def __iter__(self) -> "Lines":
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


def _records(file: BinaryIO) -> Iterator[list[Record]]:
    """Yield the records of a file: many at a time while lines are plain, then one by one.

    Plain are lines of UTF-8 without a quote, CR or NUL: `csv` would cut them at their commas. From
    the first block on that has others `csv` reads, which takes three times as long.
    """
    number, held = 0, b""
    while data := file.read(_BLOCK):
        data = held + data
        end = data.rfind(b"\n") + 1
        lines = _plain(data[:end])
        if lines is None:
            held = data
            break
        yield [
            (number + at, line.split(",") if line else [], "") for at, line in enumerate(lines, 1)
        ]
        number, held = number + len(lines), data[end:]
    rest = io.TextIOWrapper(
        io.BufferedReader(_Behind(held, file)), "utf-8", "surrogateescape", newline=""
    )
    yield from ([record] for record in _odd_records(rest, number))


def _plain(data: bytes) -> list[str] | None:
    """Return the lines of whole ones that are plain (see `_records`), or None."""
    if not data or any(odd in data for odd in (b'"', b"\r", b"\0")):
        return None
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    lines.pop()  # what follows the last line's end
    return lines if max(map(len, lines)) < LONGEST else None


class _Behind(io.RawIOBase):
    """Some bytes, and behind them those of a file, which stays open."""

    def __init__(self, data: bytes, file: BinaryIO) -> None:
        self._data, self._file = data, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data[: len(buffer)] or self._file.read(len(buffer))
        self._data = self._data[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _odd_records(lines: TextIO, number: int) -> Iterator[Record]:
    """Yield the records of a file, whatever it holds, from the line after `number` on."""
    source = Lines(lines, number)
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


@contextlib.contextmanager
def _open(uri: str) -> Iterator[BinaryIO]:
    """Open a .csv or .csv.gz; errors as of `open_csv`."""
    with storage.reading(uri) as file:
        try:
            yield unpacked(file, uri.endswith(".gz"))
        except (InputError, UnicodeError, EOFError, OSError, zlib.error, csv.Error) as error:
            raise InputError(f"{uri}: not a CSV file: {error}") from error


@contextlib.contextmanager
def open_csv(uri: str) -> Iterator[TextIO]:
    """Open a .csv or .csv.gz as text whose line ends are as they are.

    Raises:
        InputError: there is no such file, or it cannot be opened; or what reads it in the block
            finds no text, or no CSV.
    """
    with _open(uri) as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")


def unpacked(file: BinaryIO, packed: bool) -> BinaryIO:
    """Return the bytes of an open file, packed with gzip or not."""
    return gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]
