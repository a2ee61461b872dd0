"""Files on disk. What the functions promise is said in `storage`."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from carvana_ray.errors import Denied, InputError, Missing, TooLarge, Unreachable
from carvana_ray.storage.base import DRAFT, Entry

MENDED_BY_USERS = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
DRAFT_AGE_S = 60  # older ones that nobody holds open are left over from a crash


def absolute(uri: str) -> str:
    """Return the path from the root on."""
    if "://" in uri:
        raise InputError(f"{uri}: neither a local path nor s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))


def exists(uri: str) -> bool:
    """Return whether there is a file or folder."""
    return os.path.exists(uri)


def size(uri: str) -> int | None:
    """Return the bytes of a file, None if it is not there."""
    try:
        return os.stat(uri).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def listing(uri: str, suffixes: Sequence[str]) -> list[Entry]:
    """Return the files of a folder, by name."""
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


def read(uri: str, at_most: int | None) -> bytes:
    """Return the contents of a file."""
    with reading(uri) as file:
        try:
            length = os.fstat(file.fileno()).st_size
            if at_most is not None and length > at_most:
                raise TooLarge(f"{uri}: {length} bytes, at most {at_most}")
            return file.read()
        except OSError as error:
            raise _named(error, uri) from error


def reading(uri: str) -> BinaryIO:
    """Open a file to read piece by piece."""
    try:
        return open(uri, "rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Missing(f"{uri}: no such file") from None
    except OSError as error:
        raise _named(error, uri) from error


def _named(error: OSError, uri: str) -> Unreachable:
    kind = Denied if error.errno in MENDED_BY_USERS else Unreachable
    return kind(error.errno, error.strerror, uri)


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


def require_room(uri: str, needed: int, scratch: int) -> None:
    """Raise `InputError` if a folder cannot be written, or its disk has not `needed` bytes free.

    A file is written and removed again: neither the owner nor the mode of a folder tell of a
    read-only mount or a quota.
    """
    del scratch  # a file that is being published lies in the same folder
    try:
        publish(probe := os.path.join(uri, f"{DRAFT}{uuid.uuid4().hex}"), b"?", True)
        remove(probe)
    except OSError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(uri).free
    if free < needed:
        raise InputError(
            f"--out {uri}: {free / 1e6:,.0f} MB are free there, about {needed / 1e6:,.0f} MB are "
            "needed; make room, or name a folder on another disk"
        )


def free(uri: str) -> int | None:
    """Return the bytes that are free where a folder is or will be."""
    while not os.path.exists(uri):
        uri = os.path.dirname(uri)
    return shutil.disk_usage(uri).free


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


def publish(uri: str, data: bytes, replace: bool) -> bool:
    """Write a file, whole or not at all; return whether it now holds these bytes."""
    with _draft(uri) as (file, name):
        file.write(data)
        _to_disk(file)
        if replace:
            os.replace(name, uri)
            return True
        try:
            os.link(name, uri)  # unlike a rename it fails where the name is taken
        except FileExistsError:
            return read(uri, None) == data
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
