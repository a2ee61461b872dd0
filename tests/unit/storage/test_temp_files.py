"""Temporary files of killed writers are removed; no other file is, whatever its name and age."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from support.commands import REPOSITORY

from carvana_ray import storage
from carvana_ray.storage import temp_files
from carvana_ray.storage.base import TEMP_PREFIX


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def draft(folder: Path, age: float = 10**6) -> Path:
    """Create a temporary file that looks `age` seconds old."""
    file = folder / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    file.write_bytes(b"half")
    set_age(file, age)
    return file


def set_age(file: Path, age: float) -> None:
    os.utime(file, (time.time() - age,) * 2)


def test_an_unlocked_temp_file_is_removed_when_its_writer_would_have_locked_it(
    tmp_path: Path,
) -> None:
    young = draft(tmp_path, temp_files.LOCK_DELAY_S - 2)
    draft(tmp_path, temp_files.LOCK_DELAY_S + 1)
    temp_files.sweep(str(tmp_path))
    assert names(tmp_path) == [young.name]


def test_without_locks_only_an_old_temp_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    young = draft(tmp_path, temp_files.UNLOCKED_AGE_S - 10)
    draft(tmp_path, temp_files.UNLOCKED_AGE_S + 1)
    temp_files.sweep(str(tmp_path))
    assert names(tmp_path) == [young.name]


def test_a_temp_file_is_opened_for_writing_as_nfs_requires_for_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def lock(file: int, operation: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    draft(tmp_path, temp_files.LOCK_DELAY_S + 1)
    temp_files.sweep(str(tmp_path))
    assert names(tmp_path) == []


def test_only_temp_files_are_removed(tmp_path: Path) -> None:
    digits = uuid.uuid4().hex
    others = ["a.parquet", ".hidden", f"draft-{digits}", f"x{TEMP_PREFIX}{digits}", ".draft-a"]
    others += [".draft-my-notes.md", f"{TEMP_PREFIX}{digits}.csv", f"{TEMP_PREFIX}{digits[:-1]}"]
    for name in others:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "below").mkdir()
    draft(tmp_path / "below")
    (tmp_path / f"{TEMP_PREFIX}{digits}").mkdir()
    before = names(tmp_path)
    temp_files.sweep(str(tmp_path))
    assert names(tmp_path) == before
    assert len(names(tmp_path / "below")) == 1


def test_a_missing_folder_has_no_temp_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    temp_files.sweep(str(tmp_path / "missing"))
    temp_files.sweep(str(tmp_path / "file"))
    assert names(tmp_path) == ["file"]


def test_a_locked_temp_file_is_never_removed(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    with storage.atomic_writer(uri) as file:
        file.write(b"whole")
        file.flush()
        set_age(*tmp_path.iterdir(), 10**6)
        temp_files.sweep(str(tmp_path))
        assert len(names(tmp_path)) == 1
    assert storage.read(uri) == b"whole"


def test_the_first_write_into_a_folder_removes_the_temp_files_there(tmp_path: Path) -> None:
    for folder in ("one", "one/below", "two"):
        (tmp_path / folder).mkdir()
        draft(tmp_path / folder)
    storage.write_atomic(str(tmp_path / "one/below/file"), b"x")
    with storage.atomic_writer(str(tmp_path / "two/file")) as file:
        file.write(b"x")
    assert names(tmp_path / "one/below") == names(tmp_path / "two") == ["file"]
    assert len(names(tmp_path / "one")) == 2
    draft(tmp_path / "two")
    storage.write_atomic(str(tmp_path / "two/file"), b"y", replace=True)
    assert len(names(tmp_path / "two")) == 2, "a large folder is not listed at each write"


HOLD = """
import sys, time
from carvana_ray import storage
with storage.atomic_writer(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("holds", flush=True)
    time.sleep(60)
"""


def test_the_temp_file_of_another_process_is_removed_only_after_its_death(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"old")
    command = [sys.executable, "-c", HOLD, uri]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "holds\n"
            set_age(*tmp_path.glob(f"{TEMP_PREFIX}*"), 10**6)
            temp_files.sweep(str(tmp_path))
            assert len(names(tmp_path)) == 2, "its writer lives"
        finally:
            holder.kill()
        assert holder.wait() == -signal.SIGKILL
    assert len(names(tmp_path)) == 2, "its writer could not remove it"
    temp_files.sweep(str(tmp_path))
    assert names(tmp_path) == ["file"]
    assert storage.read(uri) == b"old"
