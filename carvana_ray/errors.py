"""Errors with a one-line message for the user, and the exit codes of the jobs."""

from typing import Any

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BAD_IMAGES = 3
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to resume


class InputError(ValueError):
    """Raised for a wrong flag or wrong input. Exit code 2.

    The message is one line that names the flag, file or key.
    """


class FileMissingError(InputError):
    """Raised if a file does not exist. Exit code 2."""


class FileTooLargeError(InputError):
    """Raised if a file is larger than the caller allows. Exit code 2."""


class StorageUnavailableError(OSError):
    """Raised if a file cannot be reached because a disk, network or store fails. Exit code 1.

    The cause may be temporary. Arguments as of every `OSError`: number, cause, URI of the file.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class FileChangedError(StorageUnavailableError):
    """Raised if a file is not the version that the caller expects. Exit code 1."""


class StorageAccessError(StorageUnavailableError, InputError):
    """Raised if a file cannot be reached for a cause that the user can fix. Exit code 2.

    Causes are credentials, permissions, or the name of a bucket.
    """


class BadImageError(ValueError):
    """Raised if an image or mask file cannot be used. Handled per image; never ends a job itself.

    The message is the reason, without the file name. It starts with a fixed word (``not-an-image``,
    ``truncated``, ``wrong-size``, ``too-large``, ``mode``, ``mask-values``, ``animated``,
    ``checksum``, ``missing``), by which lists of bad images are counted.
    """


class IncompleteError(Exception):
    """Raised if a disk, network or machine failed before a job was finished. Exit code 1.

    The same command resumes the job. The message is one line that names the file.
    """


class BadImagesError(Exception):
    """Raised at the end of a job that could not use some images. Exit code 3.

    The message names the file that lists them. The job prints `result` as JSON, as usual.
    """

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if there is no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 image``, ``2 images``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
