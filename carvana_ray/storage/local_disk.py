"""Files on a local disk or a network mount. `router` documents the functions."""

import contextlib
import errno
import fcntl
import filecmp
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, TypeVar

from carvana_ray.errors import (
    FileChangedError,
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import CHANGED, REPLACED, FileInfo, FolderContent
from carvana_ray.storage.temp_files import fsync, make_folder, new_name, temp_file

T = TypeVar("T")

USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
LOCK_FILE = ".carvana_ray.lock"  # one per folder whose files are replaced conditionally
NO_TARGET = "a link to a file that does not exist"  # its disk may not be mounted


def resolve(uri: str) -> str:
    if "://" in uri:
        raise InputError(f"{uri}: must be a local path or s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))


def exists(uri: str) -> bool:
    return _stat(uri) is not None


def _stat(uri: str) -> os.stat_result | None:
    return _unless_missing(os.stat, uri)


def _unless_missing(call: Callable[[str], T], uri: str) -> T | None:
    """Return the result of a call, None if the file or folder certainly does not exist."""
    with _translate_errors(uri):
        try:
            return call(uri)
        except (FileNotFoundError, NotADirectoryError):
            if _is_dangling(uri):
                raise StorageUnavailableError(errno.ENOENT, NO_TARGET, uri) from None
            return None


def _is_dangling(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


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
        raise kind(error.errno, error.strerror or str(error), uri) from error


def list_files(uri: str, suffixes: tuple[str, ...], limit: int | None) -> list[FileInfo]:
    files = _unless_missing(partial(_scan_files, suffixes=suffixes, limit=limit), uri)
    if files is None:
        raise InputError(f"{uri}: no such folder")
    return sorted(files)


def _scan_files(uri: str, suffixes: tuple[str, ...], limit: int | None) -> list[FileInfo]:
    with os.scandir(uri) as entries:
        found = (
            file
            for entry in entries
            if not entry.name.startswith(".")
            and entry.name.lower().endswith(suffixes)
            and (file := _file_info(entry))
        )
        return list(itertools.islice(found, limit))


def _file_info(entry: os.DirEntry[str]) -> FileInfo | None:
    """Return the entry of a listing, None for a folder and for a file that was removed meanwhile.

    A dangling link is listed with size 0 and a version of its own: reading it finds a missing file,
    and when its target exists again, it is another version.
    """
    with _translate_errors(entry.path):
        try:
            status = entry.stat()
        except (FileNotFoundError, NotADirectoryError):
            return FileInfo(entry.name, 0, "dangling") if os.path.islink(entry.path) else None
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileInfo(entry.name, status.st_size, str(status.st_mtime_ns))


def list_all(uri: str) -> FolderContent:
    content = _unless_missing(_scan_all, uri)
    if content is None:
        raise InputError(f"{uri}: no such folder")
    return content


def _scan_all(uri: str) -> FolderContent:
    files, folders, linked = list[FileInfo](), list[str](), list[str]()
    with os.scandir(uri) as entries:
        for entry in entries:
            if file := _file_info(entry):
                files.append(file)
            elif _is_dir(entry):
                (linked if entry.is_symlink() else folders).append(entry.name)
    return FolderContent(sorted(files), sorted(folders), sorted(linked))


def list_dirs(uri: str) -> list[str]:
    return sorted(_unless_missing(_scan_dirs, uri) or [])


def _scan_dirs(uri: str) -> list[str]:
    with os.scandir(uri) as entries:
        return [entry.name for entry in entries if _is_dir(entry)]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    with _translate_errors(entry.path):
        return entry.is_dir()


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


def state(uri: str) -> str:
    status = _unless_missing(_open_and_stat, uri)
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}" if status else ""


def _open_and_stat(path: str) -> os.stat_result:
    with open(path, "rb") as file:  # NFS asks the server when a file is opened
        return os.fstat(file.fileno())


def write_atomic(uri: str, data: bytes, expected: str | None) -> bool:
    with temp_file(os.path.dirname(uri)) as (file, name):
        file.write(data)
        fsync(file)
        return _publish(name, uri, expected) or _same_contents(name, uri)


@contextlib.contextmanager
def atomic_writer(uri: str, expected: str | None) -> Iterator[BinaryIO]:
    with temp_file(os.path.dirname(uri)) as (file, name):
        yield file
        fsync(file)
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


def remove(uri: str) -> None:
    _unless_missing(os.unlink, uri)


def remove_dir(uri: str) -> None:
    shutil.rmtree(uri, ignore_errors=True)  # although another process removes it, too
    _unless_missing(shutil.rmtree, uri)  # raises the error of what is left


def require_writable(uri: str) -> None:
    # Neither the owner nor the mode of a folder shows a read-only mount or a quota. The calls are
    # those of a run, in a folder of their own, which takes the lock file with it.
    probe = new_name(uri)
    file = os.path.join(probe, "file")
    try:
        make_folder(uri)
        try:
            write_atomic(file, b"1", "")
            write_atomic(file, b"2", state(file))
            write_atomic(file, b"3", None)
            remove(file)
        finally:
            remove_dir(probe)
    except OSError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> int | None:
    while not exists(uri):
        uri = os.path.dirname(uri)
    with _translate_errors(uri):
        return shutil.disk_usage(uri).free
