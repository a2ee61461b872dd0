"""Files on local disk and in S3: list, read, write. The docstrings here hold for both stores.

A URI is a local path or ``s3://bucket/key``. Writes are atomic: a reader sees the old file or the
new one, never a part of it. A file that cannot be reached raises `StorageUnavailableError`, or
`StorageAccessError` if rights are missing; it never passes for a file that does not exist.

On disk a file is written under a hidden name, `TEMP_PREFIX` and 32 hexadecimal digits. The first
write of a process into a folder removes such files of killed writers. In S3 a lifecycle rule
removes the parts of interrupted uploads (docs/cluster.md).
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import BinaryIO

from carvana_ray.errors import InputError
from carvana_ray.storage import local_disk
from carvana_ray.storage.base import S3_SCHEME, FileInfo, FolderContent, Store

READ_AHEAD = 16  # parallel reads from S3; at 30 ms a file, 500 files/s for a process


def _store(uri: str) -> Store:
    if not is_remote(uri):
        return local_disk
    from carvana_ray.storage import s3

    return s3


def is_remote(uri: str) -> bool:
    """Return whether the URI is in S3, where every machine finds the same file."""
    return uri.startswith(S3_SCHEME)


def resolve(uri: str) -> str:
    """Return the URI in the one form that all processes of a cluster use.

    Raises:
        InputError: the scheme is not supported, or the bucket or key is malformed.
    """
    return _store(uri).resolve(uri)


def join(uri: str, *names: str) -> str:
    """Return the URI of a file or folder in the folder `uri`."""
    return "/".join([uri.rstrip("/") or "/", *names])


def parent(uri: str) -> str:
    """Return the URI of the folder that contains a file or folder."""
    return os.path.dirname(uri)


def name(uri: str) -> str:
    """Return the last component of a URI."""
    return os.path.basename(uri)


def exists(uri: str) -> bool:
    """Return whether a file or folder exists.

    Raises:
        StorageUnavailableError: that is unknown, or it is a link to a file that does not exist,
            whose disk may not be mounted.
    """
    return _store(uri).exists(uri)


def list_files(
    uri: str, suffixes: tuple[str, ...] = ("",), limit: int | None = None
) -> list[FileInfo]:
    """Return the files of a folder whose names end in one of `suffixes` (any case), by name.

    Hidden files are skipped: macOS stores metadata of images in files such as ``._a_01.jpg``. A
    file that is removed while the folder is listed is left out. A link to a file that does not
    exist is listed with size 0; reading it raises `FileMissingError`. With a `limit` the listing
    stops after that many files, whichever the store names first.

    Raises:
        InputError: the folder does not exist.
        StorageUnavailableError: the folder or a file in it cannot be reached.
    """
    return _store(uri).list_files(uri, suffixes, limit)


def list_all(uri: str) -> FolderContent:
    """Return everything in a folder; files are listed as `list_files` does.

    Keys of S3 that stand for a folder are no files.

    Raises:
        InputError: the folder does not exist.
        StorageUnavailableError: the folder or a file in it cannot be reached.
    """
    return _store(uri).list_all(uri)


def list_dirs(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in order; [] if it does not exist.

    Raises:
        StorageUnavailableError: the folder cannot be reached.
    """
    return _store(uri).list_dirs(uri)


def read(uri: str, at_most: int | None = None, expected: FileInfo | None = None) -> bytes:
    """Return the contents of a file.

    Contents from S3 are compared with their checksum, if it is known, and read again on a mismatch.

    Args:
        uri: of the file.
        at_most: size in bytes that the file may have.
        expected: an entry of a listing. The contents then are those of the listed size and
            version: on disk the open file is compared before and after it is read, in S3 the
            condition is part of the request.

    Raises:
        FileMissingError: the file does not exist.
        FileTooLargeError: the file has more than `at_most` bytes; nothing is read.
        FileChangedError: the file has another size or version than `expected`.
        StorageUnavailableError: the file cannot be reached.
    """
    return _store(uri).read(uri, at_most, expected)


def read_many(
    uris: Sequence[str],
    at_most: int | None = None,
    expected: Sequence[FileInfo] | None = None,
) -> Iterator[bytes | Exception]:
    """Yield for each file, in order, the result of `read` or the error that it raises.

    Files of S3 are read ahead in threads: each takes about 30 ms, and 2 ms to decode. Reads that
    have not started are canceled when the caller stops iterating.

    Args:
        uris: of the files.
        at_most: size in bytes that each file may have.
        expected: for each file its entry in a listing, as in `read`.
    """
    entries = [None] * len(uris) if expected is None else expected
    files = list(zip(uris, entries, strict=True))
    if not any(map(is_remote, uris)):
        yield from (_try_read(uri, at_most, entry) for uri, entry in files)
        return
    pool = ThreadPoolExecutor(READ_AHEAD)
    pending: deque[Future[bytes | Exception]] = deque()
    try:
        for uri, entry in files:
            pending.append(pool.submit(_try_read, uri, at_most, entry))
            if len(pending) > READ_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _try_read(uri: str, at_most: int | None, expected: FileInfo | None) -> bytes | Exception:
    try:
        return read(uri, at_most, expected)
    except (InputError, OSError) as error:
        return error


def open_read(uri: str) -> BinaryIO:
    """Open a file for reading in pieces, for files too large for memory. Raises as `read` does."""
    return _store(uri).open_read(uri)


def state(uri: str) -> str:
    """Return the state of a file, which changes when the file is replaced; "" if it is missing.

    It is opaque: on disk inode, size and modification time, in S3 the ETag.

    Raises:
        StorageUnavailableError: the file cannot be reached.
    """
    return _store(uri).state(uri)


def write_atomic(
    uri: str, data: bytes, *, replace: bool = False, expected: str | None = None
) -> bool:
    """Write a file atomically; return whether it now holds `data`.

    Missing folders are created. An existing file stays as it is unless `replace` is true or the
    file has the state `expected`. The answer is False if the file holds other bytes: another
    writer was first.

    Two writers with the same `expected` never both replace a file. On disk the state is compared
    under the lock of a hidden file of the folder, which a killed writer releases; file systems
    without locks leave an instant between comparison and replacement. In S3 the condition is part
    of the request (If-Match, or If-None-Match for a new file). If the answer to a write is lost in
    S3 and another writer then replaces the file, the result is False, too.

    Args:
        uri: of the file.
        data: its contents.
        replace: replace an existing file in any state.
        expected: a result of `state`; with "" the file must be new.

    Raises:
        OSError: the file cannot be written.
    """
    if expected is None and not replace:
        expected = ""
    return _store(uri).write_atomic(uri, data, expected)


def atomic_writer(uri: str, expected: str | None = None) -> AbstractContextManager[BinaryIO]:
    """Return a context with a temporary file to write and read.

    At the end of the block the file replaces `uri`. If the block raises, `uri` stays as it was.
    Conditions are those of `write_atomic`. Of a file that travels to S3 in parts the state is
    compared once more before the last request, since some stores ignore its condition.

    Args:
        uri: of the file.
        expected: a result of `state`. If `uri` has another state at the end of the block and does
            not hold the same bytes, it stays as it is, and the block raises `FileChangedError`.
    """
    return _store(uri).atomic_writer(uri, expected)


def remove(uri: str) -> None:
    """Remove a file if it exists.

    Raises:
        StorageUnavailableError: it cannot be removed.
    """
    _store(uri).remove(uri)


def remove_dir(uri: str) -> None:
    """Remove a folder and everything in it, if it exists.

    Raises:
        StorageUnavailableError: something in it cannot be removed; all else is removed on disk.
    """
    _store(uri).remove_dir(uri)


def require_writable(uri: str) -> None:
    """Raise `InputError` if files cannot be written to a folder, which is created if needed.

    A file is created, replaced in its state, replaced in any state, and removed. A warning names a
    store in S3 that ignores conditions: two jobs there could replace each other's files.
    """
    _store(uri).require_writable(uri)


def free_space(uri: str) -> int | None:
    """Return the free bytes on the disk of a folder, which need not exist; None for S3.

    Raises:
        StorageUnavailableError: the folder cannot be reached.
    """
    return _store(uri).free_space(uri)
