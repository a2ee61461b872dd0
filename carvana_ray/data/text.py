"""Text files as editors and spreadsheets write them: encodings, byte order marks, line ends."""

import codecs
import io
from typing import Any, BinaryIO, TextIO

from carvana_ray import storage
from carvana_ray.errors import InputError

NOT_TEXT = "bytes that are not UTF-8; save the file as UTF-8"
MAX_BYTES = 2**26  # of a list that is read as a whole
_MARKS = [  # UTF-32 first, because its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text file from its first four bytes.

    Without a byte order mark a zero for every other byte tells UTF-16; all else is UTF-8.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    zeros = [byte == 0 for byte in head]
    if zeros[:4] == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros[:4] == [True, False, True, False] else "utf-8"


def open_text(file: BinaryIO) -> TextIO:
    """Return a file as text without its byte order mark, in bounded memory, line ends as they are.

    In UTF-8 a byte that does not belong to a character becomes one of U+DC80 to U+DCFF.
    """
    head = file.read(4)
    encoding = encoding_of(head)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    whole = io.BufferedReader(Prefixed(head, file))
    return io.TextIOWrapper(whole, encoding, errors, newline="")


class Prefixed(io.RawIOBase):
    """Bytes followed by the rest of an open file. Closing it leaves the file open."""

    def __init__(self, data: bytes, file: BinaryIO) -> None:
        self._data, self._file = data, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data[: len(buffer)] or self._file.read(len(buffer))
        self._data = self._data[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def read_lines(uri: str, flag: str) -> list[str]:
    """Return the lines of a text file without blank ones and without spaces around them.

    Args:
        uri: the file.
        flag: the flag that names it, for error messages.

    Raises:
        InputError: the file cannot be opened, is too large or is not text.
    """
    file = open_text(io.BytesIO(storage.read(uri, MAX_BYTES)))
    lines = []
    try:
        for number, line in enumerate(file.read().splitlines(), 1):
            if any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in line):
                raise InputError(f"{flag} {uri}: line {number}: {NOT_TEXT}")
            lines.append(line.strip())
    except UnicodeDecodeError as error:
        raise InputError(f"{flag} {uri}: {error}; save the file as UTF-8") from error
    return [line for line in lines if line]
