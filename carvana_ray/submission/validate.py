"""Validation of a submission: every fault with its name, its image and its line.

Accepts files of any origin. Whatever the bytes are, the result is a list of faults or one
`InputError`. Rows pass through `csv_reader` a megabyte at a time, so a file of 0.9 GB needs memory
for that megabyte and for the names.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

from carvana_ray import rle
from carvana_ray.data import csv_reader, layout
from carvana_ray.data.csv_reader import Record
from carvana_ray.errors import InputError, plural

MAX_LISTED = 100  # faults of one name that are listed; all are counted
_MAX_NAME_LENGTH = 255  # of a file name on common file systems; longer names are cut in faults
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets execute such a cell


@dataclass(frozen=True)
class SubmissionFault:
    """A fault of a submission.

    Attributes:
        fault: name of the fault. Faults of the file: ``empty`` (no rows), ``header``. Faults of a
            line's form: ``encoding`` (not UTF-8, or a byte order mark), ``nul``, ``line-ends``,
            ``quotes``. Faults of a row: ``columns``, ``doubled``, ``foreign``, ``missing``,
            ``name`` (not a name of Kaggle's, or a spreadsheet formula), or one of `rle.parse_runs`.
        img: name of the image, at most 255 characters; "" if the fault has no image.
        line: line of the file where the row begins, from 1; 0 if there is no such line.
        detail: description in words.
    """

    fault: str
    img: str
    line: int
    detail: str


def validate(
    file: BinaryIO, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[SubmissionFault], Counter]:
    """Validate an open submission.

    LF and CR LF end a line. A blank line is a row without columns. Memory: a megabyte of rows (or
    one longer row) and two sets of the expected names, about 0.2 GB for a million names.

    Args:
        file: the CSV, opened in binary mode, at its start.
        expected: names of the images that must have a row. None accepts any names of Kaggle's form.
        pixels: returns height times width of an expected image.

    Returns:
        The number of rows, the faults (at most 100 of each name), and the count of each name.

    Raises:
        InputError: the file is not a CSV: its first line is not text, or a line is too long.
    """
    csv.field_size_limit(csv_reader.LONGEST)  # csv's default of 128 kB is too low for ragged masks
    validator = _Validator(None if expected is None else frozenset(expected), pixels)
    blocks = csv_reader.iter_record_blocks(file)
    first: list[Record] = next(blocks, [(1, [], "")])
    _, header, form = first.pop(0)
    for fault, detail in _header_faults(header, form):
        validator.add(fault, "", 1, detail)
    rows = 0
    for block in itertools.chain([first], blocks):
        validator.check_block(block)
        rows += len(block)
    if not rows:
        validator.add("empty", "", 0, "the file has no rows")
    for name in expected or ():
        if name not in validator.seen:
            validator.add("missing", name, 0, "the image has no row")
    return rows, validator.faults, validator.counts


@dataclass
class _Validator:
    """The checks of rows, and the faults found so far."""

    expected: frozenset[str] | None
    pixels: Callable[[str], int]
    faults: list[SubmissionFault] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)  # valid names that have a row

    def add(self, fault: str, img: str, line: int, detail: str) -> None:
        self.counts[fault] += 1
        if self.counts[fault] <= MAX_LISTED:
            self.faults.append(SubmissionFault(fault, img[:_MAX_NAME_LENGTH], line, detail))

    def check_block(self, block: Sequence[Record]) -> None:
        masks_are_valid = len(block) > 1 and self._masks_are_valid(block)
        for line, fields, form in block:
            name = fields[0] if fields else ""
            for fault, detail in self._row_faults(fields, form, masks_are_valid):
                self.add(fault, name, line, detail)
            if name in self.seen:
                self.add("doubled", name, line, "the image already has a row")
            if self._is_valid_name(name):  # any other name is a fault already, and may be long
                self.seen.add(name)

    def _is_valid_name(self, name: str) -> bool:
        if self.expected is None:
            return layout.KAGGLE_NAME.fullmatch(name) is not None
        return name in self.expected

    def _masks_are_valid(self, block: Sequence[Record]) -> bool:
        """Return `rle.all_valid` of the masks: much faster than parsing one by one."""
        rows = [
            fields
            for _, fields, form in block
            if len(fields) == 2 and not form and self._has_size(fields[0])
        ]
        return rle.all_valid([text for _, text in rows], [self.pixels(name) for name, _ in rows])

    def _has_size(self, name: str) -> bool:
        return self.expected is None or name in self.expected

    def _row_faults(
        self, fields: list[str], form: str, mask_is_valid: bool
    ) -> Iterator[tuple[str, str]]:
        if form or len(fields) != 2:
            fault, _, detail = form.partition(": ")
            columns = plural(len(fields), "column")
            yield fault or "columns", detail or f"{columns}, expected 2"
            return
        name, text = fields
        if name.startswith(_FORMULA_STARTS):
            yield "name", "a spreadsheet would execute it as a formula"
        elif not self._has_size(name):
            yield "foreign", "the image is not one of the expected images"
        elif not self._is_valid_name(name):
            yield "name", "not a name like 0004d4463b50_01.jpg"
        if not mask_is_valid and self._has_size(name):
            try:
                rle.parse_runs(text, self.pixels(name))
            except ValueError as error:
                fault, _, detail = str(error).partition(": ")
                yield fault, detail


def _header_faults(header: list[str], form: str) -> Iterator[tuple[str, str]]:
    """Yield (fault, detail) of the first line; raise `InputError` if it is not text."""
    fault, _, detail = form.partition(": ")
    if fault in ("encoding", "nul"):
        raise InputError(f"the first line has {detail}")
    if fault:
        yield fault, detail
    if header and header[0].startswith("\ufeff"):
        yield "encoding", "the file begins with a byte order mark, which would be part of a name"
        header = [header[0][1:], *header[1:]]
    if tuple(header) != layout.CSV_HEADER:
        yield "header", f"{','.join(header)[:60]!r}, expected {','.join(layout.CSV_HEADER)}"


def validate_file(
    uri: str, expected: Sequence[str] | None, pixels: Callable[[str], int]
) -> tuple[int, list[dict], dict[str, int]]:
    """Validate a .csv or .csv.gz file; return the result of `validate` as plain values.

    Raises:
        InputError: the file is missing, cannot be opened, is not a CSV, or its gzip is damaged.
    """
    with csv_reader.open_binary(uri) as file:
        rows, faults, counts = validate(file, expected, pixels)
    return rows, [asdict(fault) for fault in faults], dict(counts)
