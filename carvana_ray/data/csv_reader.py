"""The records of a CSV of any origin, in bounded memory: each with its line and what its form is.

Most lines need no CSV reader, which looks at each character: they are cut at their commas.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO

from carvana_ray import storage
from carvana_ray.data import layout as carvana
from carvana_ray.errors import InputError

# Characters of a line, and of a field: more than the most ragged mask of 1280 x 1918 has (12.3
# million), so that a file without line ends, or with a quote left open, cannot fill the memory.
LONGEST = 2**24
_BLOCK = 2**20  # bytes that are read at a time
_FIRST = 257  # characters of a row's first line that are kept: a name, its comma and a quote
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, by "surrogateescape"

Record = tuple[int, list[str], str]  # line where it begins, fields, ``fault: detail`` of its form


class BoundedLines:
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

    def __iter__(self) -> "BoundedLines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LONGEST:
            raise InputError(f"line {self.number} has more than {LONGEST} characters")
        self.last, self.first = line[-2:], self.first or line[:_FIRST]
        return line


def iter_record_blocks(file: BinaryIO) -> Iterator[list[Record]]:
    """Yield the records of a file: many at a time while lines are plain, then one by one.

    Plain are lines of UTF-8 without a quote, CR or NUL: `csv` would cut them at their commas. From
    the first megabyte on that has others, or no line's end, `csv` reads: three times as slow.

    Args:
        file: the bytes of the CSV, from their start.

    Raises:
        InputError: a line is endless.
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
    yield from ([record] for record in _iter_irregular(rest, number))


def _plain(data: bytes) -> list[str] | None:
    """Return the lines of whole ones that are plain (see `blocks_of`), or None."""
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


def _iter_irregular(lines: TextIO, number: int) -> Iterator[Record]:
    """Yield the records of a file, whatever it holds, from the line after `number` on."""
    source = BoundedLines(lines, number)
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
def open_binary(uri: str) -> Iterator[BinaryIO]:
    """Open the bytes of a .csv or .csv.gz.

    Raises:
        InputError: there is no such file, or it cannot be opened; or what reads it in the block
            finds no text, or no CSV.
    """
    with storage.open_read(uri) as file:
        try:
            yield gunzip_if(file, uri.endswith(".gz"))
        except (InputError, UnicodeError, EOFError, OSError, zlib.error, csv.Error) as error:
            raise InputError(f"{uri}: not a CSV file: {error}") from error


@contextlib.contextmanager
def open_text(uri: str) -> Iterator[TextIO]:
    """Open a .csv or .csv.gz as text whose line ends are as they are; errors as of `opened`."""
    with open_binary(uri) as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")


def gunzip_if(file: BinaryIO, packed: bool) -> BinaryIO:
    """Return the bytes of an open file, packed with gzip or not."""
    return gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]


Row = tuple[str, str]


def read_names(uri: str) -> list[str]:
    """Return the pictures that a ``sample_submission.csv`` lists, in its order.

    Raises:
        InputError: it is no such file, or it cannot be opened.
    """
    csv.field_size_limit(LONGEST)  # a real submission may be given as the list
    with open_text(uri) as lines:
        rows = csv.reader(BoundedLines(lines), strict=True)
        header = tuple(next(rows, ()))
        names = [row[0] for row in rows if row] if header == carvana.CSV_HEADER else []
    if header != carvana.CSV_HEADER:
        raise InputError(f"{uri}: its first line must be {','.join(carvana.CSV_HEADER)}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        first = repr(twice[0])[1:-1]  # no control codes of the file reach a terminal
        raise InputError(f"{uri}: lists {len(twice)} pictures more than once, first {first}")
    return names


def read_rows(uri: str) -> Iterator[Row]:
    """Yield the rows of a submission, (picture, runs), one by one.

    Raises:
        InputError: it is none, or it cannot be opened.
    """
    csv.field_size_limit(LONGEST)
    with open_text(uri) as lines:
        source = BoundedLines(lines)
        rows = csv.reader(source, strict=True)
        if tuple(next(rows, ())) != carvana.CSV_HEADER:
            raise InputError(f"its first line must be {','.join(carvana.CSV_HEADER)}")
        for row in rows:
            if len(row) != 2:
                raise InputError(f"line {source.number}: {len(row)} columns, expected 2")
            yield row[0], row[1]


def digests(uri: str, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of the runs of some pictures, each of which has one row.

    Raises:
        InputError: a picture has none, or several; and see `read_rows`.
    """
    wanted, found = set(names), dict[str, str]()
    for name, text in read_rows(uri):
        if name in found:
            raise InputError(f"--submission {uri}: {name} has more than one row")
        if name in wanted:
            found[name] = hashlib.sha256(text.encode()).hexdigest()
    if missing := sorted(wanted - set(found)):
        raise InputError(
            f"--submission {uri}: {len(missing)} of {len(wanted)} pictures have no row, the first "
            f"is {missing[0]}"
        )
    return found
