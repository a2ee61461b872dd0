"""Where files lie: list, read, publish whole. The only module that names a file system.

A place is a URI: a local path today. Nothing is ever half there: bytes are made first and published
in one step, so a reader sees all of a file or none of it.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from carvana_ray.errors import InputError


@dataclass(frozen=True, order=True)
class Entry:
    """A file of a listing: `name` within its folder, `size` in bytes, `version` that changes with
    its contents (the time of the last change, in ns)."""

    name: str
    size: int
    version: str


def absolute(uri: str) -> str:
    """Return the URI as every process of a cluster must write it.

    Raises:
        InputError: a scheme that is not supported.
    """
    if "://" in uri:
        raise InputError(f"{uri}: only local folders can be read and written by this version")
    return os.path.abspath(os.path.expanduser(uri))


def join(uri: str, *names: str) -> str:
    """Return the URI of a file or folder within a folder."""
    return "/".join([uri.rstrip("/") or "/", *names])


def exists(uri: str) -> bool:
    """Return whether there is a file or folder."""
    return os.path.exists(uri)


def listing(uri: str, suffixes: Sequence[str] = ("",)) -> list[Entry]:
    """Return the files of a folder whose names end in one of `suffixes` (any case), by name.

    Hidden files are left out: macOS and editors leave pictures' shadows like ``._a_01.jpg``.

    Raises:
        InputError: there is no such folder.
    """
    wanted = tuple(suffixes)
    try:
        with os.scandir(uri) as files:
            found = [
                Entry(file.name, status.st_size, str(status.st_mtime_ns))
                for file in files
                if not file.name.startswith(".")
                and file.name.lower().endswith(wanted)
                and file.is_file()
                and (status := file.stat())
            ]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{uri}: no such folder") from None
    return sorted(found)


def read(uri: str) -> bytes:
    """Return the contents of a file.

    Raises:
        InputError: there is no such file.
    """
    try:
        with open(uri, "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{uri}: no such file") from None


def reading(uri: str) -> BinaryIO:
    """Open a file to read piece by piece, for those that are too large for memory.

    Raises:
        InputError: there is no such file.
    """
    try:
        return open(uri, "rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{uri}: no such file") from None


def remove(uri: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(uri)


def publish(uri: str, data: bytes, *, replace: bool = False) -> bool:
    """Write a file, whole or not at all; return whether this call did.

    Args:
        uri: of the file; missing folders are made.
        data: its contents.
        replace: else a file that is there already stays, and the answer is False.
    """
    with _draft(uri) as (file, name):
        file.write(data)
        _to_disk(file)
        if replace:
            os.replace(name, uri)
            return True
        try:
            os.link(name, uri)  # unlike a rename it fails where the name is taken
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def publishing(uri: str) -> Iterator[BinaryIO]:
    """Give a file to write and read that replaces `uri` when the block ends, never if it raises."""
    with _draft(uri) as (file, name):
        yield file
        _to_disk(file)
        os.replace(name, uri)


@contextlib.contextmanager
def _draft(uri: str) -> Iterator[tuple[BinaryIO, str]]:
    """Give a new hidden file in the folder of `uri`, and its name; it is gone afterwards."""
    folder = os.path.dirname(uri)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: cannot be made a folder, there is a file in the way") from None
    name = os.path.join(folder, f".draft-{uuid.uuid4().hex}")
    # Not by the tempfile module: its files are for their owner alone, whatever the umask allows.
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file, name
        _folder_to_disk(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: str) -> None:
    """Make the names in a folder outlast a power cut: a file's own fsync does not cover them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
