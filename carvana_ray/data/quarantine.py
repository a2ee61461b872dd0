"""Pictures that cannot be used: how many a run puts up with, and the file that lists them.

What prediction and cut-outs have in common: bad pictures are left for the end, but so many that it
cannot be the pictures' fault end the run.
"""

import csv
import io
from collections.abc import Sequence

from carvana_ray import storage
from carvana_ray.data import layout as carvana
from carvana_ray.errors import IncompleteError, InputError

OK = "ok"  # status of a picture that was read; else the reason why not
UNREACHABLE = "unreachable"
CRASH = "crash: kills the process that works on it"

FILE = "quarantine.csv"
AT_MOST = 100, 0.01  # pictures, or this share of them: with more it is not the pictures' fault
PROBLEMS = 8  # results that cannot be written, or have pictures that cannot be reached

Bad = tuple[str, str, int]  # name, reason, CRC-32 of its file


def write_csv(folder: str, bad: Sequence[Bad]) -> str:
    """Write quarantine.csv; return its place."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow([carvana.CSV_HEADER[0], "reason", "crc32"])
    table.writerows([name, reason, f"{crc:08x}"] for name, reason, crc in bad)
    uri = storage.join(folder, FILE)
    storage.write_atomic(uri, text.getvalue().encode(), replace=True)
    return uri


def summarize(bad: Sequence[Bad], uri: str) -> str:
    """Return a sentence: how many pictures, the first of them, and where all are listed."""
    named = ", ".join(f"{name} ({reason})" for name, reason, _ in bad[:3])
    more = " ..." if len(bad) > 3 else ""
    return f"{len(bad)} pictures cannot be used: {named}{more}; all are listed in {uri}"


class FailureLimits:
    """What a run puts up with before it is ended early.

    Args:
        folder: of the pictures.
        pictures: their number.
        what: it makes, for messages: ``shards``.
        least: bad pictures that are allowed in any case.
    """

    def __init__(self, folder: str, pictures: int, what: str, least: int = 0) -> None:
        self._folder, self._what = folder, what
        self._allowed = max(AT_MOST[0], int(AT_MOST[1] * pictures), least)
        self._problems: list[str] = []

    def count_bad(self, count: int, last: str) -> None:
        """Take the number of bad pictures so far, and the last of them with its reason.

        Raises:
            InputError: these are too many.
        """
        if count > self._allowed:
            raise InputError(
                f"--data {self._folder}: {count} bad pictures so far, the last is {last}; more "
                f"than {self._allowed} are not looked at: is it the right folder? The {self._what} "
                "made so far are kept"
            )

    def add_failure(self, text: str) -> None:
        """Take why a result is not there, for no fault of its pictures.

        Raises:
            Unfinished: there are too many.
        """
        self._problems.append(text)
        if len(self._problems) >= PROBLEMS:
            self.raise_if_failed()

    def raise_if_failed(self) -> None:
        """Raise `Unfinished` if there was a problem."""
        if self._problems:
            raise IncompleteError(
                f"{len(self._problems)} {self._what} could not be made, the first for "
                f"{self._problems[0]}; all others are kept, run again to go on"
            )
