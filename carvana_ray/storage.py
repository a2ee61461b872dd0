"""Where files lie: list, read, publish whole. The only module that names a file system.

A place is a URI: a local path today. Nothing is ever half there: bytes are made first and published
in one step, so a reader sees all of a file or none of it.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from carvana_ray.errors import InputError

DRAFT = ".draft-"  # the beginning of the names of files that are not whole yet
DRAFT_AGE_S = 60  # older ones that nobody holds open are left over from a crash


@dataclass(frozen=True, order=True, slots=True)  # slots: a catalogue may have a million of them
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


def parent(uri: str) -> str:
    """Return the folder that a file or folder is in."""
    return os.path.dirname(uri)


def name(uri: str) -> str:
    """Return the last name of a URI."""
    return os.path.basename(uri)


def exists(uri: str) -> bool:
    """Return whether there is a file or folder."""
    return os.path.exists(uri)


def size(uri: str) -> int | None:
    """Return the bytes of a file, None if it is not there."""
    try:
        return os.stat(uri).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


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
        OSError: it cannot be reached; names the file, also where the system does not.
    """
    try:
        with open(uri, "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{uri}: no such file") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, uri) from error


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


def remove_folder(uri: str) -> None:
    """Remove a folder and all in it, if it is there."""
    shutil.rmtree(uri, ignore_errors=True)


def folders(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in order; none if it is not there."""
    if not os.path.isdir(uri):
        return []
    with os.scandir(uri) as found:
        return sorted(one.name for one in found if one.is_dir())


def require_room(uri: str, needed: int) -> None:
    """Raise `InputError` if a folder cannot be written, or its disk has not `needed` bytes free.

    The folder is made. A file is written and removed again: neither the owner nor the mode of a
    folder tell of a read-only mount or a quota.
    """
    try:
        publish(probe := join(uri, f"{DRAFT}{uuid.uuid4().hex}"), b"?")
        remove(probe)
    except OSError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(uri).free
    if free < needed:
        raise InputError(
            f"--out {uri}: {free / 1e6:,.0f} MB are free there, about {needed / 1e6:,.0f} MB are "
            "needed; make room, or name a folder on another disk"
        )


def sweep(uri: str) -> None:
    """Remove what writers that were killed have left in a folder.

    A writer holds a lock on its draft, which the system takes from it when it dies.
    """
    if not os.path.isdir(uri):
        return
    with os.scandir(uri) as files:
        drafts = [file.path for file in files if file.name.startswith(DRAFT)]
    for draft in drafts:
        with contextlib.suppress(OSError), open(draft, "rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > DRAFT_AGE_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(draft)


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
    name = os.path.join(folder, f"{DRAFT}{uuid.uuid4().hex}")
    # Not by the tempfile module: its files are for their owner alone, whatever the umask allows.
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            with contextlib.suppress(OSError):  # file systems without locks: see `sweep`
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
