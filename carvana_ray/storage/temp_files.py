"""Files that are still being written, on disk: hidden, locked, removed when their writer dies."""

import contextlib
import fcntl
import functools
import os
import re
import time
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from carvana_ray.errors import InputError
from carvana_ray.storage.base import TEMP_PREFIX

LOCK_DELAY_S = 5  # a new file has its writer's lock by then
UNLOCKED_AGE_S = 60  # file systems without locks: a writer has finished, or died

_TEMP_NAME = re.compile(re.escape(TEMP_PREFIX) + "[0-9a-f]{32}")


def new_name(folder: str) -> str:
    """Return the path of a temporary file that does not exist."""
    return os.path.join(folder, f"{TEMP_PREFIX}{uuid.uuid4().hex}")


@contextlib.contextmanager
def temp_file(folder: str) -> Iterator[tuple[BinaryIO, str]]:
    """Yield a new file in a folder, which is created, and its path; remove it afterwards.

    What the block renamed or linked survives a power cut.
    """
    make_folder(folder)
    _sweep_once(folder)
    name = new_name(folder)
    try:
        # The tempfile module would make the file private, whatever the umask allows.
        with open(name, "xb+") as file:
            with contextlib.suppress(OSError):  # file systems without locks rely on the age
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file, name
        _fsync_folder(folder)
    finally:
        with contextlib.suppress(OSError):  # it was renamed; otherwise the next process removes it
            os.unlink(name)


def make_folder(folder: str) -> None:
    """Create a folder unless it exists; raise `InputError` if a file is in the way."""
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: cannot be created, a file is in the way") from None


def fsync(file: BinaryIO) -> None:
    """Write a file's buffer to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def _fsync_folder(folder: str) -> None:
    """Make renames and links in a folder survive a power cut; fsync of a file does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@functools.cache
def _sweep_once(folder: str) -> None:
    sweep(folder)


def sweep(folder: str) -> None:
    """Remove the temporary files that killed writers left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMP_NAME.fullmatch(entry.name):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    # A writer locks its file, and the system releases the lock when the writer dies. The file is
    # opened for writing, as NFS requires for this lock.
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        age = time.time() - os.fstat(file.fileno()).st_mtime
        if age < LOCK_DELAY_S:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # the writer lives
            return
        except OSError:  # there are no locks
            if age < UNLOCKED_AGE_S:
                return
        os.unlink(path)
