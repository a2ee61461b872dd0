"""Local files are whole or absent, replaced only on request, and leave no temporary files."""

import builtins
import contextlib
import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import BinaryIO

import pytest
from support import additions
from support.commands import REPOSITORY
from support.rights import run_without_rights

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
from carvana_ray.storage.base import TEMP_PREFIX

ROUNDS = 20


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


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
    found = [entry.name for entry in storage.list_files(str(tmp_path))]
    assert found == sorted(f"file-{turn}" for turn in range(10))


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


def test_everything_in_a_folder_is_listed_by_kind(tmp_path: Path) -> None:
    for name in ("b", "a/below", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("z.jpg", ".c.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"12")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    found = storage.list_all(str(tmp_path))
    sizes = [(".c.jpg", 2), ("gone.jpg", 0), ("notes.txt", 2), ("z.jpg", 2)]
    assert [(file.name, file.size) for file in found.files] == sizes
    assert (found.folders, found.linked_folders) == ([".hidden", "a", "b"], ["loop"])
    for missing in ("missing", "z.jpg"):
        with pytest.raises(InputError, match="no such folder"):
            storage.list_all(str(tmp_path / missing))


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
    assert not list(tmp_path.glob(f"{TEMP_PREFIX}*"))


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

    monkeypatch.setattr(local_disk, "fsync", stopped_clock)
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
from carvana_ray.storage.base import TEMP_PREFIX
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


UNKNOWN = [
    (errno.EIO, "Input/output error", StorageUnavailableError),
    (errno.ESTALE, "Stale file handle", StorageUnavailableError),
    (errno.EACCES, "Permission denied", StorageAccessError),
]
ASKS = [
    storage.exists,
    storage.list_files,
    storage.list_dirs,
    storage.free_space,
    storage.state,
]


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(("number", "cause", "kind"), UNKNOWN)
def test_what_cannot_be_looked_at_is_an_error_and_not_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[str], object],
    number: int,
    cause: str,
    kind: type[OSError],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, cause)

    for module, name in ((os, "stat"), (os, "scandir"), (builtins, "open")):
        monkeypatch.setattr(module, name, refuse)
    with pytest.raises(kind) as caught:
        ask("/data/folder")
    monkeypatch.undo()
    assert str(caught.value) == f"/data/folder: {cause}"
    assert isinstance(caught.value, InputError) == (kind is StorageAccessError)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("target", ["nowhere", "file/below"])
def test_a_link_to_nothing_is_an_error_and_not_missing(
    tmp_path: Path, ask: Callable[[str], object], target: str
) -> None:
    """The link may lead to a disk that is not mounted."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(StorageUnavailableError) as caught:
        ask(f"{tmp_path}/link")
    assert str(caught.value) == f"{tmp_path}/link: a link to a file that does not exist"
    assert not isinstance(caught.value, InputError)


def test_a_link_to_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert storage.list_dirs(f"{tmp_path}/link") == []
    with pytest.raises(InputError, match="no such folder"):
        storage.list_files(f"{tmp_path}/link")


@pytest.mark.parametrize("target", ["nowhere.jpg", "file/below.jpg"])
def test_a_link_to_nothing_is_listed_as_a_missing_file(tmp_path: Path, target: str) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "folder"
    folder.mkdir()
    disk.mkdir()
    (disk / "file").touch()
    (folder / "a.jpg").symlink_to(disk / target)
    (before,) = storage.list_files(str(folder), (".jpg",))
    assert (before.name, before.size) == ("a.jpg", 0)
    assert storage.list_files(str(folder), (".jpg",)) == [before]
    with pytest.raises(FileMissingError):
        storage.read(f"{folder}/a.jpg", expected=before)
    (disk / "file").unlink()
    (disk / target).parent.mkdir(exist_ok=True)
    (disk / target).touch()
    (after,) = storage.list_files(str(folder), (".jpg",))
    assert after.version != before.version, "the mounted file is another one"
    with pytest.raises(FileChangedError):
        storage.read(f"{folder}/a.jpg", expected=before)


def test_a_file_that_is_removed_while_its_folder_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "c.jpg").symlink_to(tmp_path / "a.jpg")
    real = os.scandir

    def remove_meanwhile(path: str) -> object:
        entries = list(real(path))
        for name in ("b.jpg", "c.jpg"):
            (tmp_path / name).unlink()
        return contextlib.nullcontext(iter(entries))

    monkeypatch.setattr(os, "scandir", remove_meanwhile)
    found = storage.list_files(str(tmp_path))
    monkeypatch.undo()
    assert [entry.name for entry in found] == ["a.jpg"]


def test_a_link_to_itself_is_named_in_one_line(tmp_path: Path) -> None:
    link = tmp_path / "a.jpg"
    link.symlink_to(link)
    for ask in (storage.exists, storage.state, storage.read):
        with pytest.raises(StorageAccessError, match=f"^{link}: Too many levels of symbolic"):
            ask(str(link))
    with pytest.raises(StorageAccessError, match=f"^{link}: Too many levels of symbolic"):
        storage.list_files(str(tmp_path))


ASK_WITHOUT_RIGHTS = """
import json, sys
from carvana_ray import storage
answers = {}
for place in ("shut", "shut/file", "links"):
    for ask in (storage.exists, storage.list_files, storage.list_dirs, storage.free_space):
        try:
            answer = ask(f"{sys.argv[1]}/{place}")
        except Exception as error:
            answer = f"{type(error).__name__} {error}"
        answers[f"{ask.__name__} {place}"] = answer
print(json.dumps(answers))
"""


def test_a_folder_without_rights_is_named_in_one_line(tmp_path: Path) -> None:
    for name in ("shut", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "shut/file").touch()
    (tmp_path / "links/a.jpg").symlink_to(tmp_path / "shut/file")
    (tmp_path / "shut").chmod(0o600)  # its files can be listed, but not looked at
    try:
        answers = json.loads(run_without_rights(ASK_WITHOUT_RIGHTS, str(tmp_path)))
    finally:
        (tmp_path / "shut").chmod(0o700)
    denied = f"StorageAccessError {tmp_path}/{{}}: Permission denied"
    for place in ("shut", "links"):
        assert answers.pop(f"free_space {place}") > 0
    assert answers == {
        "exists shut": True,
        "list_files shut": denied.format("shut/file"),
        "list_dirs shut": [],
        "exists shut/file": denied.format("shut/file"),
        "list_files shut/file": denied.format("shut/file"),
        "list_dirs shut/file": denied.format("shut/file"),
        "free_space shut/file": denied.format("shut/file"),
        "exists links": True,
        "list_files links": denied.format("links/a.jpg"),
        "list_dirs links": denied.format("links/a.jpg"),
    }


def test_a_file_that_cannot_be_removed_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder/below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        (tmp_path / "folder" / name).touch()
    real = os.unlink

    def refuse_b(path: str, **options: int) -> None:
        if os.path.basename(path) == "b":
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        real(path, **options)

    monkeypatch.setattr(os, "unlink", refuse_b)
    for remove, place in ((storage.remove, "folder/b"), (storage.remove_dir, "folder")):
        with pytest.raises(StorageUnavailableError) as caught:
            remove(f"{tmp_path}/{place}")
        assert str(caught.value) == f"{tmp_path}/{place}: Device or resource busy"
    monkeypatch.undo()
    assert names(tmp_path / "folder") == ["b"]
    storage.remove(f"{tmp_path}/folder/b/below")


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def no_hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system as exFAT, and many network mounts."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_files_are_whole_and_stay_unless_replaced(tmp_path: Path) -> None:
    storage.require_writable(str(tmp_path / "out"))
    assert names(tmp_path / "out") == []
    uri = str(tmp_path / "file")
    assert storage.write_atomic(uri, b"first")
    assert not storage.write_atomic(uri, b"second")
    assert storage.write_atomic(uri, b"first")
    assert storage.read(uri) == b"first"
    with pytest.raises(FileChangedError), storage.atomic_writer(uri, "") as file:
        file.write(b"third")
    assert storage.read(uri) == b"first"
    assert not list(tmp_path.glob(f"{TEMP_PREFIX}*"))


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_exactly_one_of_eight_simultaneous_writers_wins(tmp_path: Path) -> None:
    test_exactly_one_of_eight_simultaneous_writers_wins(tmp_path)


@pytest.mark.parametrize("call", ["link", "replace"])
def test_the_write_check_makes_the_calls_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, calls = getattr(os, call), []

    def count(*arguments: str) -> None:
        calls.append(arguments)
        real(*arguments)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, call, count)
    storage.require_writable(str(tmp_path))
    assert calls
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(InputError, match=f"--out {tmp_path}: cannot be written: Read-only"):
        storage.require_writable(str(tmp_path))
    assert names(tmp_path) == []
