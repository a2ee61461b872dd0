"""Files on a local disk or a network mount. `router` documents the functions."""

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
TEMP_MAX_AGE_S = 60  # older temporary files without a lock are left over from a crash


def resolve(uri: str) -> str:
    """Return the absolute path."""
    if "://" in uri:
        raise InputError(f"{uri}: is neither a local path nor s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))


def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
    return os.path.exists(uri)


def size(uri: str) -> int | None:
    """Return the size of a file in bytes, None if it does not exist."""
    try:
        return os.stat(uri).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def list_files(uri: str, suffixes: Sequence[str]) -> list[FileInfo]:
    """Return the files of a folder, by name."""
    wanted = tuple(suffixes)
    try:
        with os.scandir(uri) as entries:
            files = [
                FileInfo(entry.name, status.st_size, str(status.st_mtime_ns))
                for entry in entries
                if not entry.name.startswith(".")
                and entry.name.lower().endswith(wanted)
                and entry.is_file()
                and (status := entry.stat())
            ]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{uri}: no such folder") from None
    return sorted(files)


def list_dirs(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in order; [] if it does not exist."""
    if not os.path.isdir(uri):
        return []
    with os.scandir(uri) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def read(uri: str, at_most: int | None) -> bytes:
    """Return the contents of a file."""
    with open_read(uri) as file:
        try:
            length = os.fstat(file.fileno()).st_size
            if at_most is not None and length > at_most:
                raise FileTooLargeError(f"{uri}: {length} bytes, at most {at_most} are allowed")
            return file.read()
        except OSError as error:
            raise _unavailable(error, uri) from error


def open_read(uri: str) -> BinaryIO:
    """Open a file for reading in pieces."""
    try:
        return open(uri, "rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{uri}: no such file") from None
    except OSError as error:
        raise _unavailable(error, uri) from error


def _unavailable(error: OSError, uri: str) -> StorageUnavailableError:
    kind = StorageAccessError if error.errno in USER_ERRNOS else StorageUnavailableError
    return kind(error.errno, error.strerror, uri)


def write_atomic(uri: str, data: bytes, replace: bool) -> bool:
    """Write a file atomically; return whether it now holds `data`."""
    with _temp_file(uri) as (file, name):
        file.write(data)
        _fsync_file(file)
        if replace:
            os.replace(name, uri)
            return True
        try:
            os.link(name, uri)  # unlike a rename, a link fails if the target exists
        except FileExistsError:
            return read(uri, None) == data
        return True


@contextlib.contextmanager
def atomic_writer(uri: str) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces `uri` at the end of the block, unless it raises."""
    with _temp_file(uri) as (file, name):
        yield file
        _fsync_file(file)
        os.replace(name, uri)


@contextlib.contextmanager
def _temp_file(uri: str) -> Iterator[tuple[BinaryIO, str]]:
    """Yield a new hidden file in the folder of `uri` and its path; remove it afterwards."""
    folder = os.path.dirname(uri)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: cannot be created, a file is in the way") from None
    name = os.path.join(folder, f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    # The tempfile module would make the file private, whatever the umask allows.
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            with contextlib.suppress(OSError):  # file systems without locks rely on the age
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
    """Make renames and links in a folder survive a power cut; fsync of a file does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(uri: str) -> None:
    """Remove a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(uri)


def remove_dir(uri: str) -> None:
    """Remove a folder and everything in it, if it exists."""
    shutil.rmtree(uri, ignore_errors=True)


def require_writable(uri: str) -> None:
    """Raise `InputError` if files cannot be written to a folder, which is created if needed.

    A file is written and removed again, because neither the owner nor the mode of a folder shows
    a read-only mount or a quota.
    """
    probe = os.path.join(uri, f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    try:
        write_atomic(probe, b"?", True)
        remove(probe)
    except OSError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> int | None:
    """Return the free bytes on the disk of a folder, which need not exist."""
    while not os.path.exists(uri):
        uri = os.path.dirname(uri)
    return shutil.disk_usage(uri).free


def remove_stale_temps(uri: str) -> None:
    """Remove the temporary files that killed writers left in a folder.

    A writer locks its temporary file, and the system releases the lock when the writer dies.
    """
    if not os.path.isdir(uri):
        return
    with os.scandir(uri) as entries:
        temps = [entry.path for entry in entries if entry.name.startswith(TEMP_PREFIX)]
    for temp in temps:
        with contextlib.suppress(OSError), open(temp, "rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > TEMP_MAX_AGE_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(temp)
