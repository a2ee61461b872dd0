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

from carvana_ray.errors import (
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import TEMP_PREFIX, FileInfo

USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
TEMP_MAX_AGE_S = 60  # older ones that nobody holds open are left over from a crash


def resolve(uri: str) -> str:
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


def list_files(uri: str, suffixes: Sequence[str]) -> list[FileInfo]:
    """Return the files of a folder, by name."""
    wanted = tuple(suffixes)
    try:
        with os.scandir(uri) as files:
            found = [
                FileInfo(file.name, status.st_size, str(status.st_mtime_ns))
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
    with open_read(uri) as file:
        try:
            length = os.fstat(file.fileno()).st_size
            if at_most is not None and length > at_most:
                raise FileTooLargeError(f"{uri}: {length} bytes, at most {at_most}")
            return file.read()
        except OSError as error:
            raise _unavailable(error, uri) from error


def open_read(uri: str) -> BinaryIO:
    """Open a file to read piece by piece."""
    try:
        return open(uri, "rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{uri}: no such file") from None
    except OSError as error:
        raise _unavailable(error, uri) from error


def _unavailable(error: OSError, uri: str) -> StorageUnavailableError:
    kind = StorageAccessError if error.errno in USER_ERRNOS else StorageUnavailableError
    return kind(error.errno, error.strerror, uri)


def remove(uri: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(uri)


def remove_dir(uri: str) -> None:
    """Remove a folder and all in it, if it is there."""
    shutil.rmtree(uri, ignore_errors=True)


def list_dirs(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in order; none if it is not there."""
    if not os.path.isdir(uri):
        return []
    with os.scandir(uri) as found:
        return sorted(one.name for one in found if one.is_dir())


def require_writable(uri: str) -> None:
    """Raise `InputError` if files cannot be written to a folder, which is created if needed.

    A file is written and removed again, because neither the owner nor the mode of a folder shows
    a read-only mount or a quota.
    """
    try:
        write_atomic(probe := os.path.join(uri, f"{TEMP_PREFIX}{uuid.uuid4().hex}"), b"?", True)
        remove(probe)
    except OSError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> int | None:
    """Return the bytes that are free where a folder is or will be."""
    while not os.path.exists(uri):
        uri = os.path.dirname(uri)
    return shutil.disk_usage(uri).free


def remove_stale_temps(uri: str) -> None:
    """Remove what writers that were killed have left in a folder.

    A writer holds a lock on its draft, which the system takes from it when it dies.
    """
    if not os.path.isdir(uri):
        return
    with os.scandir(uri) as files:
        drafts = [file.path for file in files if file.name.startswith(TEMP_PREFIX)]
    for draft in drafts:
        with contextlib.suppress(OSError), open(draft, "rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > TEMP_MAX_AGE_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(draft)


def write_atomic(uri: str, data: bytes, replace: bool) -> bool:
    """Write a file, whole or not at all; return whether it now holds these bytes."""
    with _temp_file(uri) as (file, name):
        file.write(data)
        _fsync_file(file)
        if replace:
            os.replace(name, uri)
            return True
        try:
            os.link(name, uri)  # unlike a rename it fails where the name is taken
        except FileExistsError:
            return read(uri, None) == data
        return True


@contextlib.contextmanager
def atomic_writer(uri: str) -> Iterator[BinaryIO]:
    """Give a file to write and read that replaces `uri` when the block ends, never if it raises."""
    with _temp_file(uri) as (file, name):
        yield file
        _fsync_file(file)
        os.replace(name, uri)


@contextlib.contextmanager
def _temp_file(uri: str) -> Iterator[tuple[BinaryIO, str]]:
    """Give a new hidden file in the folder of `uri`, and its name; it is gone afterwards."""
    folder = os.path.dirname(uri)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: cannot be made a folder, there is a file in the way") from None
    name = os.path.join(folder, f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    # Not by the tempfile module: its files are for their owner alone, whatever the umask allows.
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            with contextlib.suppress(OSError):  # file systems without locks: see `sweep`
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file, name
        _fsync_dir(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _fsync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _fsync_dir(folder: str) -> None:
    """Make the names in a folder outlast a power cut: a file's own fsync does not cover them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
