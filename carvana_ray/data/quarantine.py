"""Images that cannot be used: their status, the limits that end a run, and quarantine.csv.

Shared by training, prediction and cut-outs. A run skips bad images and reports them at the end. It
ends early if so many images are bad that the cause must be something else, such as a wrong folder.
"""

import csv
import io
from collections.abc import Sequence

from carvana_ray import storage
from carvana_ray.data.layout import CSV_HEADER
from carvana_ray.errors import IncompleteError, InputError, plural

# The status of an image is OK, the message of a `BadImageError`, or one of the others below. Its
# first word is fixed; the text after a colon is for people.
OK = "ok"
CORRECTED = "corrected"  # the mask is one that a person has corrected
MISSING = "missing"  # such a row is made again when the image is back
NOT_LISTED = f"{MISSING}: no longer in the catalog"  # planned before; neither read nor bad
UNREACHABLE = "unreachable"  # the storage failed, which says nothing about the image
CRASHED = "crash"  # such a row is looked at again by each run
CRASH = f"{CRASHED}: reading or decoding the image kills the process; each run tries it again"

FILE = "quarantine.csv"
MAX_BAD, MAX_BAD_FRACTION = 100, 0.01  # a run accepts the larger of the two
MAX_BLOCKS_LOST = 8  # blocks in a row in which nothing could be done, before the run ends

Bad = tuple[str, str, int]  # name, status, CRC-32 of the file


def is_good(status: str) -> bool:
    """Return whether an image of this status has a mask: the model's or a corrected one."""
    return status in (OK, CORRECTED)


def write_csv(folder: str, bad: Sequence[Bad]) -> str:
    """Write quarantine.csv into a folder, replacing an older one, and return its URI."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow([CSV_HEADER[0], "reason", "crc32"])
    table.writerows([name, reason, f"{crc:08x}"] for name, reason, crc in bad)
    uri = storage.join(folder, FILE)
    storage.write_atomic(uri, text.getvalue().encode(), replace=True)
    return uri


def write_faults(folder: str, faults: Sequence[tuple[str, str]]) -> str:
    """Write quarantine.csv for a training, as (image, reason), and return its URI.

    Without faults an older file becomes empty, and none is written if there is none.
    """
    uri = storage.join(folder, FILE)
    if faults or storage.exists(uri):
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerows([(CSV_HEADER[0], "reason"), *faults])
        storage.write_atomic(uri, text.getvalue().encode(), replace=True)
    return uri


def summarize(bad: Sequence[Bad], uri: str) -> str:
    """Return a sentence with the number of bad images, the first three, and the URI of the list."""
    first = ", ".join(f"{name} ({reason})" for name, reason, _ in bad[:3])
    more = " ..." if len(bad) > 3 else ""
    return f"{plural(len(bad), 'image')} cannot be used: {first}{more}; the full list is in {uri}"


class FailureLimits:
    """Ends a run early if it fails too often.

    Args:
        folder: the folder of the images.
        images: number of images.
        output: noun for the files that the run writes, in the singular: ``shard``.
        min_allowed: number of bad images that is allowed in any case.
    """

    def __init__(self, folder: str, images: int, output: str, min_allowed: int = 0) -> None:
        self._folder, self._output = folder, output
        self._allowed = max(MAX_BAD, int(MAX_BAD_FRACTION * images), min_allowed)
        self._failures, self._first_failure, self._blocks_lost = 0, "", 0

    def count_bad(self, count: int, last: str) -> None:
        """Raise `InputError` if more bad images than allowed were found so far.

        Args:
            last: the latest bad image with its reason, for the message.
        """
        if count > self._allowed:
            raise InputError(
                f"--data {self._folder}: {count} bad images so far, more than the limit of "
                f"{self._allowed}; the last is {last}. Check that this is the right folder. The "
                f"{self._output}s written so far are kept"
            )

    def add_block(self, failures: Sequence[str], usable: bool) -> None:
        """Note the outputs of a block that could not be written although their images are good.

        A file that cannot be reached says nothing about the others. `MAX_BLOCKS_LOST` blocks in a
        row in which nothing could be done say that the storage is down, and each try might take
        minutes. This holds if the blocks come in random order: otherwise the files without rights
        of one folder would end each run before it gets to the others.

        Args:
            failures: the reason for each of these outputs.
            usable: something could be done in the block.

        Raises:
            IncompleteError: the storage is down.
        """
        self._first_failure = self._first_failure or next(iter(failures), "")
        self._failures += len(failures)
        self._blocks_lost = 0 if usable else self._blocks_lost + 1
        if self._blocks_lost >= MAX_BLOCKS_LOST:
            self.raise_if_failed()

    def raise_if_failed(self) -> None:
        """Raise `IncompleteError` if any output could not be written."""
        if self._failures:
            raise IncompleteError(
                f"{plural(self._failures, self._output)} could not be written, the first because "
                f"of {self._first_failure}. All finished ones are kept; run again to continue"
            )
