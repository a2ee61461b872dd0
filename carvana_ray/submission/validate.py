"""What is wrong with a submission: each fault by its name, its picture and its line.

For files of any origin, those written here and those of strangers: whatever the bytes are, the
answer is a list of faults or one `InputError`. The rows go through `records` a megabyte at a time:
a file of 0.9 GB needs the memory of that and of the names.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO

from carvana_ray import rle
from carvana_ray.data import csv_reader as records
from carvana_ray.data import layout as carvana
from carvana_ray.data.csv_reader import Record
from carvana_ray.errors import InputError

MAX_NAMED = 100  # faults of one kind that are listed; all are counted
_LONGEST_NAME = 255  # as in a folder; of a fault's picture no more is listed

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by a spreadsheet


@dataclass(frozen=True)
class SubmissionFault:
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


def validate(
    file: BinaryIO, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[SubmissionFault], Counter]:
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
    faults: list[SubmissionFault] = []
    counts: Counter = Counter()

    def fault(kind: str, img: str, line: int, detail: str) -> None:
        counts[kind] += 1
        if counts[kind] <= MAX_NAMED:
            faults.append(SubmissionFault(kind, img[:_LONGEST_NAME], line, detail))

    csv.field_size_limit(records.LONGEST)  # a ragged mask's runs exceed the 128 kB that csv allows
    wanted = None if expected is None else set(expected)
    seen: set[str] = set()

    blocks = records.iter_record_blocks(file)
    first: list[Record] = next(blocks, [(1, [], "")])
    _, header, form = first.pop(0)
    for kind, detail in _header_faults(header, form):
        fault(kind, "", 1, detail)
    count = 0
    for block in itertools.chain([first], blocks):
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
        form: as of a `Record`.

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
    if tuple(header) != carvana.CSV_HEADER:
        yield "header", f"{','.join(header)[:60]!r}, expected {','.join(carvana.CSV_HEADER)}"


def _are_sound(
    block: Sequence[Record], wanted: set[str] | None, pixels: Callable[[str], int]
) -> bool:
    """Return whether no row of two fields has a mask with a fault; False also where it may be."""
    masks = [
        (row[1], pixels(row[0]))
        for _, row, form in block
        if len(row) == 2 and not form and (wanted is None or row[0] in wanted)
    ]
    return rle.all_valid([text for text, _ in masks], [size for _, size in masks])


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
        rle.parse_runs(text, pixels)
    except ValueError as error:
        kind, _, detail = str(error).partition(": ")
        yield kind, detail


def validate_file(
    uri: str, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[dict], dict[str, int]]:
    """Return `check` of a file, .csv or .csv.gz, as plain values.

    Raises:
        InputError: there is no such file, or it cannot be opened, or it is no CSV at all, or its
            gzip is damaged.
    """
    with records.open_binary(uri) as file:
        rows, faults, counts = validate(file, expected, pixels)
    return rows, [asdict(fault) for fault in faults], dict(counts)
