"""Local files are whole or absent, replaced only on request, and leave no temporary files."""

import builtins
import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import BinaryIO

import pytest
from support import additions
from support.commands import REPOSITORY

from carvana_ray import storage
from carvana_ray.errors import (
    FileChangedError,
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage import local_disk

ROUNDS = 20


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def age(folder: Path, seconds: float) -> None:
    """Make all temporary files of a folder look `seconds` old."""
    for temp in folder.glob(f"{local_disk.TEMP_PREFIX}*"):
        os.utime(temp, (time.time() - seconds,) * 2)


@pytest.fixture
def umask() -> Iterator[None]:
    """Restore the umask of the process afterwards."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_written_file_has_the_given_bytes(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folders" / "file.bin")
    assert storage.write_atomic(uri, b"\0\xff\r\n") is True
    assert storage.read(uri) == b"\0\xff\r\n"
    assert names(tmp_path / "new" / "folders") == ["file.bin"]


def test_an_existing_file_stays_unless_replaced(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"first")
    assert storage.write_atomic(uri, b"second") is False
    assert storage.read(uri) == b"first"
    assert storage.write_atomic(uri, b"third", replace=True) is True
    assert storage.read(uri) == b"third"
    assert names(tmp_path) == ["file"]


def test_replace_also_creates_a_file(tmp_path: Path) -> None:
    assert storage.write_atomic(str(tmp_path / "file"), b"x", replace=True) is True
    assert (tmp_path / "file").read_bytes() == b"x"


def test_an_empty_file_can_be_written(tmp_path: Path) -> None:
    assert storage.write_atomic(str(tmp_path / "file"), b"")
    assert storage.read(str(tmp_path / "file")) == b""


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_text("x")
    with pytest.raises(OSError, match="taken"):
        storage.write_atomic(str(tmp_path / "taken"), b"x", replace=True)
    assert names(tmp_path) == ["taken"]


def test_the_writer_replaces_the_file_at_the_end_of_its_block(tmp_path: Path) -> None:
    uri = str(tmp_path / "below" / "file")
    storage.write_atomic(uri, b"old")
    with storage.atomic_writer(uri) as file:
        file.write(b"n" * 100_000)
        file.flush()
        assert storage.read(uri) == b"old"
        assert [entry.name for entry in storage.list_files(str(tmp_path / "below"))] == ["file"]
    assert storage.read(uri) == b"n" * 100_000
    assert names(tmp_path / "below") == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_old_file_stays_when_the_block_of_the_writer_raises(
    tmp_path: Path, error: type[BaseException]
) -> None:
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"old")

    def write_half() -> None:
        with storage.atomic_writer(uri) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert storage.read(uri) == b"old"
    assert names(tmp_path) == ["file"]


def test_no_file_is_created_when_the_block_of_the_writer_raises(tmp_path: Path) -> None:
    def write_half() -> None:
        with storage.atomic_writer(str(tmp_path / "file")) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert names(tmp_path) == []


def test_a_reader_sees_the_old_or_the_new_file_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    wholes = [b"a" * 1_000_003, b"b" * 10]
    storage.write_atomic(uri, wholes[0])
    stop, faults = threading.Event(), []

    def write() -> None:
        try:
            for turn in range(40):
                if turn % 2:
                    storage.write_atomic(uri, wholes[turn // 2 % 2], replace=True)
                else:
                    with storage.atomic_writer(uri) as file:
                        for start in range(0, len(wholes[turn // 2 % 2]), 100_000):
                            file.write(wholes[turn // 2 % 2][start : start + 100_000])
        except BaseException as error:
            faults.append(error)
            raise
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not stop.is_set():
        seen.add(storage.read(uri))
        assert {entry.name for entry in storage.list_files(str(tmp_path))} == {"file"}
    writer.join()
    assert not faults
    assert seen <= set(wholes)
    assert names(tmp_path) == ["file"]


def test_exactly_one_of_eight_simultaneous_writers_wins(tmp_path: Path) -> None:
    for turn in range(10):
        uri = str(tmp_path / f"file-{turn}")
        start, won = threading.Barrier(8), []

        def race(who: int, uri: str = uri, start: threading.Barrier = start) -> None:
            data = bytes([who]) * 1000
            start.wait()
            if storage.write_atomic(uri, data):
                won.append(data)  # noqa: B023

        threads = [threading.Thread(target=race, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert storage.read(uri) == won[0]
    assert names(tmp_path) == sorted(f"file-{turn}" for turn in range(10))


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_the_mode_of_a_file_respects_the_umask(
    tmp_path: Path, umask: None, mask: int, mode: int
) -> None:
    os.umask(mask)
    storage.write_atomic(str(tmp_path / "one"), b"x")
    with storage.atomic_writer(str(tmp_path / "two")) as file:
        file.write(b"x")
    for name in ("one", "two"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert os.umask(mask) == mask  # the process keeps it


def test_writing_never_sets_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask belongs to all threads: setting it, even to read it, exposes others' files."""
    asked: list[int] = []
    real = os.umask

    def watched(mask: int) -> int:
        asked.append(mask)
        return real(mask)

    monkeypatch.setattr(os, "umask", watched)
    storage.write_atomic(str(tmp_path / "file"), b"x")
    assert asked == []


def test_a_listing_is_sorted_and_has_only_files(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "C.jpg", "a.txt", "._a.jpg", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    found = storage.list_files(str(tmp_path), (".jpg",))
    assert [entry.name for entry in found] == ["C.jpg", "a.jpg", "b.jpg"]
    assert {entry.size for entry in found} == {5}
    assert [entry.name for entry in storage.list_files(str(tmp_path))] == [
        "C.jpg",
        "a.jpg",
        "a.txt",
        "b.jpg",
    ]


def test_suffixes_match_in_any_case_and_only_at_the_end(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.Jpeg", "c.jpg", "d.jpg.txt", "jpg", "e.gif"):
        (tmp_path / name).touch()
    found = storage.list_files(str(tmp_path), (".jpg", ".jpeg"))
    assert [entry.name for entry in found] == ["a.JPG", "b.Jpeg", "c.jpg"]


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_limited_listing_has_some_of_the_files(tmp_path: Path, limit: int) -> None:
    for name in ("b.jpg", "a.txt", "c.jpg", "a.jpg"):
        (tmp_path / name).touch()
    every = storage.list_files(str(tmp_path), (".jpg",))
    some = storage.list_files(str(tmp_path), (".jpg",), limit)
    assert len(some) == min(limit, 3)
    assert some == sorted(set(some) & set(every))


def test_a_link_to_an_image_is_listed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"123")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (found,) = storage.list_files(str(tmp_path), (".jpg",))
    assert (found.name, found.size) == ("b.jpg", 3)


def test_only_a_changed_file_gets_another_version(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"123")
    before = storage.list_files(str(tmp_path))
    (tmp_path / "a").write_bytes(b"456")
    os.utime(tmp_path / "a", ns=(1, 1))
    after = storage.list_files(str(tmp_path))
    assert before[0] != after[0]
    assert before[0].size == after[0].size
    assert before[1] == after[1]


def test_listing_a_missing_folder_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("missing", "file", "file/below"):
        with pytest.raises(InputError, match=place):
            storage.list_files(str(tmp_path / place))


def test_reading_a_missing_file_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for place in ("missing", "folder", "file/below"):
        with pytest.raises(InputError, match=place):
            storage.read(str(tmp_path / place))


def test_a_file_can_be_read_in_pieces(tmp_path: Path) -> None:
    storage.write_atomic(str(tmp_path / "file"), b"0123456789")
    with storage.open_read(str(tmp_path / "file")) as file:
        assert [file.read(4), file.read(4), file.read(4)] == [b"0123", b"4567", b"89"]


def test_files_and_folders_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert storage.exists(str(tmp_path))
    assert storage.exists(str(tmp_path / "file"))
    assert not storage.exists(str(tmp_path / "missing"))


def test_folders_are_listed_in_order_and_without_files(tmp_path: Path) -> None:
    for name in ("b", "a/below", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert storage.list_dirs(str(tmp_path)) == ["a", "b", "c"]
    assert storage.list_dirs(str(tmp_path / "b")) == []
    assert storage.list_dirs(str(tmp_path / "missing")) == []
    assert storage.list_dirs(str(tmp_path / "file")) == []


def test_remove_dir_removes_only_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "beside").touch()
    (tmp_path / "a/link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    storage.remove_dir(str(tmp_path / "a"))
    assert names(tmp_path) == ["beside", "kept"]
    assert names(tmp_path / "kept") == ["file"], "the target of a link is not in the folder"
    storage.remove_dir(str(tmp_path / "a"))
    storage.remove_dir(str(tmp_path / "missing/below"))


def test_the_write_check_creates_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "new/out"
    storage.require_writable(str(folder))
    assert names(folder) == []
    (folder / "file").touch()
    storage.require_writable(str(folder))
    assert names(folder) == ["file"]


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="file") as caught:
        storage.require_writable(str(tmp_path / place))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
@pytest.mark.parametrize("place", ["/proc", "/proc/carvana_ray/out"])
def test_a_folder_that_cannot_be_written_is_named_with_its_flag(place: str) -> None:
    with pytest.raises(InputError, match=f"--out {place}: cannot be written: .") as caught:
        storage.require_writable(place)
    assert "\n" not in str(caught.value)


def test_an_unlocked_temp_file_is_removed_when_it_is_old(tmp_path: Path) -> None:
    for name in (f"{local_disk.TEMP_PREFIX}a", f"{local_disk.TEMP_PREFIX}b"):
        (tmp_path / name).write_bytes(b"half")
    storage.remove_stale_temps(str(tmp_path))
    assert len(names(tmp_path)) == 2, "their writers may not have locked them yet"
    age(tmp_path, local_disk.TEMP_MAX_AGE_S - 30)
    storage.remove_stale_temps(str(tmp_path))
    assert len(names(tmp_path)) == 2
    age(tmp_path, local_disk.TEMP_MAX_AGE_S + 1)
    storage.remove_stale_temps(str(tmp_path))
    assert names(tmp_path) == []


def test_only_temp_files_are_removed(tmp_path: Path) -> None:
    for name in ("a.parquet", ".hidden", "draft-a", "x.draft-a"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / f"{local_disk.TEMP_PREFIX}a").touch()
    (tmp_path / f"{local_disk.TEMP_PREFIX}folder").mkdir()
    age(tmp_path, 10**6)
    age(tmp_path / "below", 10**6)
    before = names(tmp_path)
    storage.remove_stale_temps(str(tmp_path))
    assert names(tmp_path) == before
    assert len(names(tmp_path / "below")) == 1


def test_stale_temps_of_a_missing_folder_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage.remove_stale_temps(str(tmp_path / "missing"))
    storage.remove_stale_temps(str(tmp_path / "file"))
    assert names(tmp_path) == ["file"]


def test_a_locked_temp_file_is_never_removed(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    with storage.atomic_writer(uri) as file:
        file.write(b"whole")
        file.flush()
        age(tmp_path, 10**6)
        storage.remove_stale_temps(str(tmp_path))
        assert len(names(tmp_path)) == 1
    assert storage.read(uri) == b"whole"


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
            age(tmp_path, 10**6)
            storage.remove_stale_temps(str(tmp_path))
            assert len(names(tmp_path)) == 2, "its writer lives"
        finally:
            holder.kill()
        assert holder.wait() == -signal.SIGKILL
    assert len(names(tmp_path)) == 2, "its writer could not remove it"
    storage.remove_stale_temps(str(tmp_path))
    assert names(tmp_path) == ["file"]
    assert storage.read(uri) == b"old"


def race(folder: str, who: bytes, replace: bool, start: Barrier) -> list[bool]:
    """Write in each round a file of the same name as the other process."""
    won = []
    for turn in range(ROUNDS):
        start.wait(60)
        won.append(storage.write_atomic(f"{folder}/{turn}", who * 10_000, replace=replace))
    return won


@pytest.mark.parametrize("replace", [False, True])
def test_one_of_two_simultaneous_processes_wins_or_both_with_replace(
    tmp_path: Path, replace: bool
) -> None:
    processes = multiprocessing.get_context("spawn")  # a fork would copy threads
    with processes.Manager() as manager, processes.Pool(2) as pool:
        start = manager.Barrier(2)
        jobs = [
            pool.apply_async(race, (str(tmp_path), who, replace, start)) for who in (b"a", b"b")
        ]
        first, second = (job.get(60) for job in jobs)
    assert names(tmp_path) == sorted(map(str, range(ROUNDS))), "no temporary file is left"
    for turn in range(ROUNDS):
        content = (tmp_path / str(turn)).read_bytes()
        if replace:
            assert (first[turn], second[turn]) == (True, True)
            assert content in (b"a" * 10_000, b"b" * 10_000)
        else:
            assert first[turn] != second[turn]
            assert content == (b"a" if first[turn] else b"b") * 10_000


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), StorageAccessError),
        (OSError(errno.EIO, "Input/output error"), StorageUnavailableError),
    ],
)
def test_a_file_that_cannot_be_opened_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, cause: OSError, error: type[OSError]
) -> None:
    def refuse(*_: object) -> None:
        raise cause

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(error) as raised:
        storage.read("/pictures/a.jpg")
    monkeypatch.undo()
    assert str(raised.value) == f"/pictures/a.jpg: {cause.strerror}"


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert storage.read(str(tmp_path / "file"), at_most=5) == b"12345"
    with pytest.raises(FileTooLargeError, match="5 bytes, at most 4"):
        storage.read(str(tmp_path / "file"), at_most=4)


def test_only_the_listed_version_is_read(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_bytes(b"123")
        os.utime(tmp_path / name, (1, 1))
    entries = storage.list_files(str(tmp_path))
    uris = [str(tmp_path / entry.name) for entry in entries]
    (tmp_path / "b").write_bytes(b"456")
    (tmp_path / "c").write_bytes(b"4567")
    os.utime(tmp_path / "c", (1, 1))
    (tmp_path / "d").unlink()
    first, *changed, gone = storage.read_many(uris, expected=entries)
    assert first == b"123"
    for uri, error in zip(uris[1:], changed, strict=False):
        assert isinstance(error, FileChangedError)
        assert str(error) == f"{uri}: it changed since it was listed"
    assert isinstance(gone, FileMissingError)
    assert storage.read(uris[1]) == b"456", "without an expectation any version is read"


def test_a_file_that_is_rewritten_while_it_is_read_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", (1, 1))
    (entry,) = storage.list_files(str(tmp_path))
    real, seen = os.fstat, []

    def rewrite_after_first(handle: int) -> os.stat_result:
        status = real(handle)
        if not seen:
            (tmp_path / "a").write_bytes(b"456")
        seen.append(status)
        return status

    monkeypatch.setattr(os, "fstat", rewrite_after_first)
    with pytest.raises(FileChangedError, match="changed since"):
        storage.read(str(tmp_path / "a"), expected=entry)
    monkeypatch.undo()
    assert len(seen) > 1


def test_no_addition_is_lost_when_eight_processes_replace_one_file(tmp_path: Path) -> None:
    assert additions.race(str(tmp_path / "file"), processes=8, times=25) == list(range(200))
    assert not list(tmp_path.glob(f"{local_disk.TEMP_PREFIX}*"))


def test_a_file_is_replaced_only_in_the_expected_state(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    assert storage.state(uri) == ""
    assert storage.write_atomic(uri, b"first", expected="")
    assert not storage.write_atomic(uri, b"other", expected="")
    first = storage.state(uri)
    assert storage.write_atomic(uri, b"second", expected=first)
    assert not storage.write_atomic(uri, b"third", expected=first)
    assert storage.read(uri) == b"second"
    assert storage.write_atomic(uri, b"second", expected=first), "the file holds these bytes"
    storage.remove(uri)
    assert not storage.write_atomic(uri, b"fourth", expected=first)
    assert storage.list_files(str(tmp_path)) == []


def test_no_two_replacements_in_one_tick_of_the_clock_have_one_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system may have ticks of milliseconds, and inodes are used again."""

    def stopped_clock(file: BinaryIO) -> None:
        file.flush()
        os.utime(file.fileno(), (1, 1))

    monkeypatch.setattr(local_disk, "_fsync_file", stopped_clock)
    uri, times, state = str(tmp_path / "file"), [], ""
    for turn in range(10):
        assert storage.write_atomic(uri, b"%d" % turn, expected=state)
        state = storage.state(uri)
        times.append(os.stat(uri).st_mtime_ns)
    assert times == sorted(set(times))


@pytest.mark.parametrize("old", [b"old", b""], ids=["over a file", "as a new file"])
def test_the_writer_leaves_what_another_has_published_meanwhile(tmp_path: Path, old: bytes) -> None:
    uri = str(tmp_path / "file")
    if old:
        storage.write_atomic(uri, old)

    def write(data: bytes) -> None:
        with storage.atomic_writer(uri, state) as file:
            file.write(data)
            storage.write_atomic(uri, b"another's", replace=True)

    state = storage.state(uri)
    with pytest.raises(FileChangedError) as caught:
        write(b"mine")
    assert str(caught.value) == f"{uri}: another process has replaced it meanwhile"
    assert storage.read(uri) == b"another's"
    write(b"another's")  # both have the same result
    assert [entry.name for entry in storage.list_files(str(tmp_path))] == ["file"]


LOCK = """
import sys, time
from carvana_ray.storage import local_disk
with local_disk._lock(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_of_the_lock_blocks_nobody(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"old")
    state, written = storage.state(uri), threading.Event()

    def write() -> None:
        if storage.write_atomic(uri, b"new", expected=state):
            written.set()

    command = [sys.executable, "-c", LOCK, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "holds\n"
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert not written.wait(0.2), "the lock is held"
        holder.kill()
        assert written.wait(10)
    assert storage.read(uri) == b"new"


def test_without_locks_files_are_still_replaced_in_the_expected_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(local_disk.fcntl, "flock", refuse)
    test_a_file_is_replaced_only_in_the_expected_state(tmp_path)
