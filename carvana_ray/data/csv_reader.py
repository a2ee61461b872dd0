"""CSV files of any origin, in bounded memory: records with their line numbers, names, rows.

`iter_table` reads lists as people have them, for all commands. `iter_record_blocks` shows a
submission as Kaggle would read it, for its validation.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO, TextIO

from carvana_ray import storage
from carvana_ray.data import text
from carvana_ray.data.layout import CSV_HEADER
from carvana_ray.errors import FileMissingError, InputError, StorageUnavailableError, plural

# Characters of a line, and of a field. The most ragged mask of 1280 x 1918 has 12.3 million; the
# limit keeps a file without line ends, or with an open quote, from filling the memory.
LONGEST = 2**24
_BLOCK = 2**20  # bytes read at a time
_HEAD = 257  # characters kept of a record's first line: a name, its comma and a quote
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, by "surrogateescape"

Record = tuple[int, list[str], str]  # first line, fields, ``kind: detail`` of a fault or ""
Row = tuple[str, str]  # image, runs


class BoundedLines:
    """Iterator over the lines of a file. It raises `InputError` for one longer than `LONGEST`.

    Attributes:
        number: number of the last line, from 1.
        tail: the last two characters of the last line.
        head: the first characters of the first line since `head` was set to "".
    """

    def __init__(self, file: TextIO, number: int = 0) -> None:
        self._file = file
        self.number, self.tail, self.head = number, "", ""

    def __iter__(self) -> "BoundedLines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LONGEST:
            raise InputError(f"line {self.number} has more than {LONGEST} characters")
        self.tail, self.head = line[-2:], self.head or line[:_HEAD]
        return line


def iter_record_blocks(file: BinaryIO) -> Iterator[list[Record]]:
    """Yield the records of a CSV file: in large blocks while lines are plain, then one by one.

    A plain line is UTF-8 without a quote, CR or NUL, and is split at its commas. From the first
    megabyte on that has another line, or no line end, `csv` reads the file, three times slower.

    Raises:
        InputError: a line is longer than `LONGEST`.
    """
    number, held = 0, b""
    while data := file.read(_BLOCK):
        data = held + data
        end = data.rfind(b"\n") + 1
        lines = _plain(data[:end])
        if lines is None:
            held = data
            break
        first = number + 1
        yield [(n, line.split(",") if line else [], "") for n, line in enumerate(lines, first)]
        number, held = number + len(lines), data[end:]
    rest = io.BufferedReader(text.Prefixed(held, file))
    decoded = io.TextIOWrapper(rest, "utf-8", "surrogateescape", newline="")
    yield from ([record] for record in _iter_irregular(decoded, number))


def _plain(data: bytes) -> list[str] | None:
    """Return the lines of `data`, which ends with a line end; None if a line is not plain."""
    if not data or any(mark in data for mark in (b'"', b"\r", b"\0")):
        return None
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    lines.pop()  # the empty text after the last line end
    return lines if max(map(len, lines)) < LONGEST else None


def _iter_irregular(file: TextIO, number: int) -> Iterator[Record]:
    """Yield the records of any text whose first line has the number after `number`."""
    lines = BoundedLines(file, number)
    rows = csv.reader(lines, strict=True)
    while True:
        start, lines.head = lines.number + 1, ""
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # the reader resumes at the next line
            yield start, [lines.head.split(",")[0].strip('"')], f"quotes: {error}"
            continue
        yield start, row, _form_fault(start, row, lines)


def _form_fault(start: int, row: list[str], lines: BoundedLines) -> str:
    """Return the fault in the form of the record that starts at a line, or ""."""
    if lines.number > start:
        return f"quotes: an open quote joins the row with the lines up to {lines.number}"
    if any("\0" in field for field in row):
        return "nul: a byte of value 0"
    if any(not field.isascii() and _UNDECODED.search(field) for field in row):
        return "encoding: bytes that are not UTF-8"
    if lines.tail.endswith("\r"):
        return "line-ends: CR only, expected LF or CR LF"
    return ""


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    """Open the bytes of a .csv or .csv.gz file, unpacked.

    Raises:
        InputError: the file cannot be opened, or the with-block raises an error about its content.
    """
    with storage.open_read(uri) as file:
        try:
            yield gunzip_if(file, uri.endswith(".gz"))
        except StorageUnavailableError:
            raise
        except (InputError, UnicodeError, EOFError, OSError, zlib.error, csv.Error) as error:
            raise InputError(f"{uri}: not a CSV file: {error}") from error


def gunzip_if(file: BinaryIO, packed: bool) -> BinaryIO:
    """Return an open file, unpacked if it is packed with gzip."""
    # Without a mode gzip takes the file's, which is for writing while a submission is validated.
    return gzip.GzipFile(fileobj=file, mode="rb") if packed else file  # type: ignore[return-value]


def iter_table(uri: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (last line, fields) of the records of a table, the header first, without blank ones.

    Accepts what editors and spreadsheets write, see `text.open_text`; commas, semicolons or tabs
    between fields; and spaces around them. `iter_record_blocks` is strict, as Kaggle is.

    Args:
        uri: a .csv or .csv.gz file.

    Raises:
        InputError: the file cannot be opened, or a line cannot be read.
    """
    csv.field_size_limit(LONGEST)
    number = 0
    with storage.open_read(uri) as file:
        try:
            lines = _iter_lines(text.open_text(gunzip_if(file, uri.endswith(".gz"))))
            head = next(lines, "")
            delimiter = max(",;\t", key=head.count)
            rows = csv.reader(itertools.chain([head], lines), delimiter=delimiter, strict=True)
            for row in rows:
                number = rows.line_num
                fields = [field.strip() for field in row]
                if fields and fields != [""]:
                    yield number, fields
        except StorageUnavailableError:
            raise
        except (InputError, UnicodeError, EOFError, OSError, zlib.error, csv.Error) as error:
            raise InputError(f"{uri}: line {number + 1}: {error}") from error


def _iter_lines(file: TextIO) -> Iterator[str]:
    for line in iter(partial(file.readline, LONGEST + 1), ""):
        if len(line) > LONGEST:
            raise InputError(f"more than {LONGEST} characters")
        if not line.isascii() and _UNDECODED.search(line):
            raise InputError(text.NOT_TEXT)
        yield line


def iter_rows(uri: str, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (last line, fields) of the rows below the header of a table, see `iter_table`.

    Raises:
        InputError: the file cannot be read, has another header, or a row has more or fewer fields.
    """
    table = iter_table(uri)
    _, first = next(table, (1, []))
    if first != list(header):
        raise InputError(
            f"{uri}: line 1: the first line must be {','.join(header)}, not "
            f"{','.join(first)[:60]!r}"
        )
    for line, row in table:
        if len(row) != len(header):
            columns = plural(len(row), "column")
            raise InputError(f"{uri}: line {line}: {columns}, expected {len(header)}")
        yield line, row


def read_names(uri: str) -> list[str]:
    """Return the images that a submission or ``sample_submission.csv`` lists, in its order.

    Raises:
        InputError: the file cannot be opened, is not such a list, or lists an image twice.
    """
    names = [row[0] for _, row in iter_rows(uri, CSV_HEADER)]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        first = repr(repeated[0])[1:-1]  # no control characters on the terminal
        count = plural(len(repeated), "image")
        raise InputError(f"{uri}: lists {count} more than once, the first is {first}")
    return names


def read_rows(uri: str) -> Iterator[Row]:
    """Yield the rows of a submission, (image, runs), in the order of the file.

    Raises:
        InputError: the file cannot be opened or is not a submission.
    """
    for _, row in iter_rows(uri, CSV_HEADER):
        yield row[0], row[1]


def digest(runs: str) -> str:
    """Return the SHA-256 of the runs of an image."""
    return hashlib.sha256(runs.encode()).hexdigest()


def digests(uri: str, names: Sequence[str]) -> dict[str, str]:
    """Return the `digest` of some images in a submission, by name.

    Raises:
        InputError: an image does not have exactly one row; or see `read_rows`.
    """
    try:
        return _digests(uri, names)
    except (StorageUnavailableError, FileMissingError):
        raise
    except InputError as error:
        raise InputError(f"--submission {error}") from error


def _digests(uri: str, names: Sequence[str]) -> dict[str, str]:
    wanted, result = set(names), dict[str, str]()
    for name, runs in read_rows(uri):
        if name in result:
            raise InputError(f"{uri}: {name} has more than one row")
        if name in wanted:
            result[name] = digest(runs)
    if missing := sorted(wanted - set(result)):
        raise InputError(
            f"{uri}: no row for {len(missing)} of {plural(len(wanted), 'image')}, the "
            f"first is {missing[0]}"
        )
    return result
