"""The errors that a user can mend, and the exit code of each."""

from typing import Any

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BAD_IMAGES = 3
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command again goes on


class InputError(ValueError):
    """Wrong usage or input. The message is one line that names the flag, file or key."""


class FileMissingError(InputError):
    """There is no such file."""


class FileTooLargeError(InputError):
    """A file has more bytes than are to be read."""


class StorageUnavailableError(OSError):
    """A file cannot be reached, for a cause outside that may pass (a disk, a network, a store).

    As every `OSError`: (number, cause, URI of the file).
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class StorageAccessError(StorageUnavailableError, InputError):
    """A file cannot be reached, for a cause that a user can mend: credentials, rights, a name."""


class BadImageError(ValueError):
    """One file is not a picture that can be used. The message is the reason, without the name.

    It starts with a fixed word (``not-an-image``, ``truncated``, ``wrong-size``, ``too-large``,
    ``mode``, ``mask-values``, ``animated``, ``checksum``, ``missing``), so that lists of bad
    pictures can be counted by reason.
    """


class IncompleteError(Exception):
    """Not all could be done, for a cause outside (a disk, a network, a machine). What is done is
    kept; the same command again goes on. The message is one line that names the file."""


class BadImagesError(Exception):
    """The work is done but for pictures that could not be used.

    Args:
        message: says where they are listed.
        result: what the job prints as its result all the same.
    """

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 image``, ``2 images``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
