"""Files on a local disk or a network mount. `router` documents the functions."""

import contextlib
import errno
import fcntl
import filecmp
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from carvana_ray.errors import (
    FileChangedError,
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import CHANGED, REPLACED, TEMP_PREFIX, FileInfo

USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
LOCK_FILE = ".carvana_ray.lock"  # one per folder whose files are replaced conditionally
TEMP_MAX_AGE_S = 60  # older temporary files without a lock are left over from a crash


def resolve(uri: str) -> str:
    if "://" in uri:
        raise InputError(f"{uri}: must be a local path or s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))


def exists(uri: str) -> bool:
    return os.path.exists(uri)


def list_files(uri: str, suffixes: tuple[str, ...], limit: int | None) -> list[FileInfo]:
    try:
        with os.scandir(uri) as entries:
            found = (
                FileInfo(entry.name, status.st_size, str(status.st_mtime_ns))
                for entry in entries
                if not entry.name.startswith(".")
                and entry.name.lower().endswith(suffixes)
                and entry.is_file()
                and (status := entry.stat())
            )
            files = list(itertools.islice(found, limit))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{uri}: no such folder") from None
    return sorted(files)


def list_dirs(uri: str) -> list[str]:
    if not os.path.isdir(uri):
        return []
    with os.scandir(uri) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def read(uri: str, at_most: int | None, expected: FileInfo | None) -> bytes:
    with _translate_errors(uri), open(uri, "rb") as file:
        length = _require_unchanged(uri, file, expected).st_size
        if at_most is not None and length > at_most:
            raise FileTooLargeError(f"{uri}: {length} bytes, at most {at_most} are allowed")
        data = file.read()
        _require_unchanged(uri, file, expected)  # another program may write into the open file
        return data


def _require_unchanged(uri: str, file: BinaryIO, expected: FileInfo | None) -> os.stat_result:
    status = os.fstat(file.fileno())
    found = (status.st_size, str(status.st_mtime_ns))
    if expected and found != (expected.size, expected.version):
        raise FileChangedError(errno.ESTALE, CHANGED, uri)
    return status


def open_read(uri: str) -> BinaryIO:
    with _translate_errors(uri):
        return open(uri, "rb")


@contextlib.contextmanager
def _translate_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{uri}: no such file") from None
    except StorageUnavailableError:
        raise
    except OSError as error:
        kind = StorageAccessError if error.errno in USER_ERRNOS else StorageUnavailableError
        raise kind(error.errno, error.strerror, uri) from error


def state(uri: str) -> str:
    status = _stat(uri)
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}" if status else ""


def _stat(uri: str) -> os.stat_result | None:
    """Return the status of a file or folder, None if it does not exist."""
    with _translate_errors(uri):
        try:
            return os.stat(uri)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(uri):  # to a disk that is not mounted, perhaps
                text = "a link to a file that does not exist"
                raise StorageUnavailableError(errno.ENOENT, text, uri) from None
            return None


def write_atomic(uri: str, data: bytes, expected: str | None) -> bool:
    with _temp_file(uri) as (file, name):
        file.write(data)
        _fsync_file(file)
        return _publish(name, uri, expected) or _same_contents(name, uri)


@contextlib.contextmanager
def atomic_writer(uri: str, expected: str | None) -> Iterator[BinaryIO]:
    with _temp_file(uri) as (file, name):
        yield file
        _fsync_file(file)
        if not (_publish(name, uri, expected) or _same_contents(name, uri)):
            raise FileChangedError(errno.ESTALE, REPLACED, uri)


def _publish(temp: str, uri: str, expected: str | None) -> bool:
    """Give a temporary file its name if the file of that name has the state `expected`."""
    if expected is None:
        os.replace(temp, uri)
        return True
    if not expected:
        try:
            os.link(temp, uri)
            return True
        except FileExistsError:
            return False
        except OSError:
            pass  # the file system has no hard links; other causes make the rename fail as well
    with _lock(os.path.dirname(uri)):
        if state(uri) != expected:
            return False
        if expected:
            # Two replacements between two ticks of the file system's clock could have the same
            # time, and a new file may have the inode of one that was removed.
            oldest = os.stat(uri).st_mtime_ns + 1
            if os.stat(temp).st_mtime_ns < oldest:
                os.utime(temp, ns=(oldest, oldest))
        os.replace(temp, uri)
    return True


def _same_contents(temp: str, uri: str) -> bool:
    with _translate_errors(uri), contextlib.suppress(FileNotFoundError):
        return filecmp.cmp(temp, uri, shallow=False)
    return False


@contextlib.contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Exclude the other processes that lock this folder; the lock ends with the process."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # not every file system has locks
            file = stack.enter_context(open(os.path.join(folder, LOCK_FILE), "ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temp_file(uri: str) -> Iterator[tuple[BinaryIO, str]]:
    """Yield a new hidden file in the folder of `uri` and its path; remove it afterwards."""
    folder = os.path.dirname(uri)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: cannot be created, a file is in the way") from None
    name = os.path.join(folder, f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    try:
        # The tempfile module would make the file private, whatever the umask allows.
        with open(name, "xb+") as file:
            with contextlib.suppress(OSError):  # file systems without locks rely on the age
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file, name
        _fsync_dir(folder)
    finally:
        remove(name)


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
    with contextlib.suppress(FileNotFoundError):
        os.unlink(uri)


def remove_dir(uri: str) -> None:
    shutil.rmtree(uri, ignore_errors=True)


def require_writable(uri: str) -> None:
    # Neither the owner nor the mode of a folder shows a read-only mount or a quota.
    probe = os.path.join(uri, f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    try:
        write_atomic(probe, b"?", None)
        remove(probe)
    except OSError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> int | None:
    while not os.path.exists(uri):
        uri = os.path.dirname(uri)
    return shutil.disk_usage(uri).free


def remove_stale_temps(uri: str) -> None:
    # A writer locks its temporary file, and the system releases the lock when the writer dies.
    for temp in Path(uri).glob(f"{TEMP_PREFIX}*"):
        with contextlib.suppress(OSError), temp.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > TEMP_MAX_AGE_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temp.unlink()
