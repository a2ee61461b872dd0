"""What is wrong with a submission: each fault by its name, its picture and its line.

For files of any origin, those written here and those of strangers: whatever the bytes are, the
answer is a list of faults or one `InputError`. The rows are read one by one: a file of 0.9 GB needs
the memory of a row and of the names.
"""

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO, TextIO

from carvana_ray import carvana, rle, storage
from carvana_ray.errors import InputError

MAX_NAMED = 100  # faults of one kind that are listed; all are counted
# Characters of a line, and of a field: more than the most ragged mask of 1280 x 1918 has (12.3
# million), so that a file without line ends, or with a quote left open, cannot fill the memory.
LONGEST = 2**24
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


def check_file(
    uri: str, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[dict], dict[str, int]]:
    """Return `check` of a file, .csv or .csv.gz, as plain values.

    Raises:
        InputError: there is no such file, or it cannot be opened, or it is no CSV at all, or its
            gzip is damaged.
    """
    with open_csv(uri) as lines:
        rows, faults, counts = check(lines, expected, pixels)
    return rows, [asdict(fault) for fault in faults], dict(counts)


class Lines:
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


def _records(lines: TextIO) -> Iterator[tuple[int, list[str], str]]:
    """Yield (first line's number, fields, ``fault: detail`` of its form or "") of each record."""
    source = Lines(lines)
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
def open_csv(uri: str, errors: str = "surrogateescape") -> Iterator[TextIO]:
    """Open a .csv or .csv.gz as text; `errors` says what becomes of bytes that are no UTF-8.

    Raises:
        InputError: there is no such file, or it cannot be opened; or what reads it in the block
            finds no text, or no CSV.
    """
    with storage.reading(uri) as file:
        try:
            yield as_text(file, uri.endswith(".gz"), errors)
        except (InputError, UnicodeError, EOFError, OSError, zlib.error, csv.Error) as error:
            raise InputError(f"{uri}: not a CSV file: {error}") from error


def as_text(file: BinaryIO, packed: bool, errors: str = "surrogateescape") -> io.TextIOWrapper:
    """Return an open file, packed with gzip or not, as text whose line ends are as they are."""
    raw = gzip.GzipFile(fileobj=file) if packed else file
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, newline="")
