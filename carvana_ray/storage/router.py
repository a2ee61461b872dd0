"""Where files lie: list, read, publish whole. What each function promises, on disk and in S3.

A place is a URI: a local path, or ``s3://bucket/key``. Nothing is ever half there: bytes are made
first and published in one step, so a reader sees all of a file or none of it. `disk` and `s3` are
the only modules that name a file system; all else goes through here.

Whatever cannot be reached is `Unreachable`, in one line that names the file and the cause; it is
`Denied` where a user can mend that (credentials, rights, a bucket that is not there).
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import BinaryIO

from carvana_ray.errors import InputError
from carvana_ray.storage import local_disk as disk
from carvana_ray.storage.base import S3_SCHEME, FileInfo, Store

__all__ = ["FileInfo"]

READ_AHEAD = 16  # files of S3 that are read at a time; at 30 ms each, 500 a second and process


def _store(uri: str) -> Store:
    if not is_remote(uri):
        return disk
    from carvana_ray.storage import s3

    return s3


def is_remote(uri: str) -> bool:
    """Return whether every machine finds the same file there."""
    return uri.startswith(S3_SCHEME)


def resolve(uri: str) -> str:
    """Return the URI as every process of a cluster must write it.

    Raises:
        InputError: a scheme that is not supported, or no name of a bucket and a key.
    """
    return _store(uri).resolve(uri)


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
    return _store(uri).exists(uri)


def size(uri: str) -> int | None:
    """Return the bytes of a file, None if it is not there."""
    return _store(uri).size(uri)


def list_files(uri: str, suffixes: Sequence[str] = ("",)) -> list[FileInfo]:
    """Return the files of a folder whose names end in one of `suffixes` (any case), by name.

    Hidden files are left out: macOS and editors leave pictures' shadows like ``._a_01.jpg``.

    Raises:
        InputError: there is no such folder.
    """
    return _store(uri).list_files(uri, suffixes)


def list_dirs(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in order; none if it is not there."""
    return _store(uri).list_dirs(uri)


def read(uri: str, at_most: int | None = None) -> bytes:
    """Return the contents of a file.

    What S3 has a checksum of is compared with it, and read again where it differs.

    Args:
        uri: of the file.
        at_most: bytes that it may have; of a larger one nothing is read.

    Raises:
        Missing: there is no such file.
        TooLarge: see `at_most`.
        Unreachable: it cannot be reached.
    """
    return _store(uri).read(uri, at_most)


def read_many(uris: Sequence[str], at_most: int | None = None) -> Iterator[bytes | Exception]:
    """Yield for each file what `read` returns, or the error that it raises, in order.

    From S3 the next ones are on their way meanwhile: a file takes some 30 ms from there, and 2 ms
    to decode. They are let go when the caller stops taking.
    """
    if not (uris and is_remote(uris[0])):
        yield from (_attempt(uri, at_most) for uri in uris)
        return
    pool = ThreadPoolExecutor(READ_AHEAD)
    under_way: deque[Future[bytes | Exception]] = deque()
    try:
        for uri in uris:
            under_way.append(pool.submit(_attempt, uri, at_most))
            if len(under_way) > READ_AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _attempt(uri: str, at_most: int | None) -> bytes | Exception:
    try:
        return read(uri, at_most)
    except (InputError, OSError) as error:
        return error


def open_read(uri: str) -> BinaryIO:
    """Open a file to read piece by piece, for those that are too large for memory.

    Raises:
        Missing: there is no such file.
        Unreachable: it cannot be reached.
    """
    return _store(uri).open_read(uri)


def write_atomic(uri: str, data: bytes, *, replace: bool = False) -> bool:
    """Write a file, whole or not at all; return whether it now holds these bytes.

    Args:
        uri: of the file; missing folders are made.
        data: its contents.
        replace: else a file that is there already stays as it is.

    Raises:
        OSError: it cannot be written.
    """
    return _store(uri).write_atomic(uri, data, replace)


def atomic_writer(uri: str) -> AbstractContextManager[BinaryIO]:
    """Give a file to write and read that replaces `uri` when the block ends, never if it raises."""
    return _store(uri).atomic_writer(uri)


def remove(uri: str) -> None:
    """Remove a file, if it is there."""
    _store(uri).remove(uri)


def remove_dir(uri: str) -> None:
    """Remove a folder and all in it, if it is there."""
    _store(uri).remove_dir(uri)


def require_writable(uri: str) -> None:
    """Raise `InputError` if files cannot be written to a folder, which is created if needed."""
    _store(uri).require_writable(uri)


def free_space(uri: str) -> int | None:
    """Return the bytes that are free where a folder is or will be, None where nobody knows: S3."""
    return _store(uri).free_space(uri)


def remove_stale_temps(uri: str) -> None:
    """Remove what writers that were killed have left in a folder."""
    _store(uri).remove_stale_temps(uri)
