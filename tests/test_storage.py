"""Files are there whole or not at all, are never replaced unasked, and leave no drafts behind."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from carvana_ray import storage
from carvana_ray.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def umask() -> Iterator[None]:
    """The process's umask, put back afterwards."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_published_file_is_what_was_given(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folders" / "file.bin")
    assert storage.publish(uri, b"\0\xff\r\n") is True
    assert storage.read(uri) == b"\0\xff\r\n"
    assert names(tmp_path / "new" / "folders") == ["file.bin"]


def test_a_file_that_is_there_stays_unless_replacing_is_asked_for(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.publish(uri, b"first")
    assert storage.publish(uri, b"second") is False
    assert storage.read(uri) == b"first"
    assert storage.publish(uri, b"third", replace=True) is True
    assert storage.read(uri) == b"third"
    assert names(tmp_path) == ["file"]


def test_replace_also_makes_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert storage.publish(str(tmp_path / "file"), b"x", replace=True) is True
    assert (tmp_path / "file").read_bytes() == b"x"


def test_an_empty_file_can_be_published(tmp_path: Path) -> None:
    assert storage.publish(str(tmp_path / "file"), b"")
    assert storage.read(str(tmp_path / "file")) == b""


def test_a_publish_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_text("x")
    with pytest.raises(OSError, match="taken"):
        storage.publish(str(tmp_path / "taken"), b"x", replace=True)
    assert names(tmp_path) == ["taken"]


def test_publishing_replaces_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    uri = str(tmp_path / "below" / "file")
    storage.publish(uri, b"old")
    with storage.publishing(uri) as file:
        file.write(b"n" * 100_000)
        file.flush()
        assert storage.read(uri) == b"old"
        assert [entry.name for entry in storage.listing(str(tmp_path / "below"))] == ["file"]
    assert storage.read(uri) == b"n" * 100_000
    assert names(tmp_path / "below") == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_publishing_leaves_the_old_file_and_no_draft_when_its_block_raises(
    tmp_path: Path, error: type[BaseException]
) -> None:
    uri = str(tmp_path / "file")
    storage.publish(uri, b"old")

    def write_half() -> None:
        with storage.publishing(uri) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert storage.read(uri) == b"old"
    assert names(tmp_path) == ["file"]


def test_publishing_makes_no_file_when_its_block_raises(tmp_path: Path) -> None:
    def write_half() -> None:
        with storage.publishing(str(tmp_path / "file")) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert names(tmp_path) == []


def test_a_reader_sees_one_whole_file_or_the_other(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    wholes = [b"a" * 1_000_003, b"b" * 10]
    storage.publish(uri, wholes[0])
    stop, faults = threading.Event(), []

    def write() -> None:
        try:
            for turn in range(40):
                if turn % 2:
                    storage.publish(uri, wholes[turn // 2 % 2], replace=True)
                else:
                    with storage.publishing(uri) as file:
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
        assert {entry.name for entry in storage.listing(str(tmp_path))} == {"file"}
    writer.join()
    assert not faults
    assert seen <= set(wholes)
    assert names(tmp_path) == ["file"]


def test_of_eight_that_publish_at_once_exactly_one_wins(tmp_path: Path) -> None:
    for turn in range(10):
        uri = str(tmp_path / f"file-{turn}")
        start, won = threading.Barrier(8), []

        def race(who: int, uri: str = uri, start: threading.Barrier = start) -> None:
            data = bytes([who]) * 1000
            start.wait()
            if storage.publish(uri, data):
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
    storage.publish(str(tmp_path / "one"), b"x")
    with storage.publishing(str(tmp_path / "two")) as file:
        file.write(b"x")
    for name in ("one", "two"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert os.umask(mask) == mask  # and the process still has it


def test_publishing_never_changes_the_umask_of_the_other_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The umask is one for all threads: to set it, if only to read it, opens others' files."""
    asked: list[int] = []
    real = os.umask

    def watched(mask: int) -> int:
        asked.append(mask)
        return real(mask)

    monkeypatch.setattr(os, "umask", watched)
    storage.publish(str(tmp_path / "file"), b"x")
    assert asked == []


def test_a_listing_is_sorted_and_has_files_alone(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "C.jpg", "a.txt", "._a.jpg", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    found = storage.listing(str(tmp_path), (".jpg",))
    assert [entry.name for entry in found] == ["C.jpg", "a.jpg", "b.jpg"]
    assert {entry.size for entry in found} == {5}
    assert [entry.name for entry in storage.listing(str(tmp_path))] == [
        "C.jpg",
        "a.jpg",
        "a.txt",
        "b.jpg",
    ]


def test_suffixes_count_in_any_case_and_only_at_the_end(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.Jpeg", "c.jpg", "d.jpg.txt", "jpg", "e.gif"):
        (tmp_path / name).touch()
    found = storage.listing(str(tmp_path), (".jpg", ".jpeg"))
    assert [entry.name for entry in found] == ["a.JPG", "b.Jpeg", "c.jpg"]


def test_a_link_to_a_picture_is_a_picture(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"123")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (found,) = storage.listing(str(tmp_path), (".jpg",))
    assert (found.name, found.size) == ("b.jpg", 3)


def test_a_changed_file_has_another_version_and_an_untouched_one_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"123")
    before = storage.listing(str(tmp_path))
    (tmp_path / "a").write_bytes(b"456")
    os.utime(tmp_path / "a", ns=(1, 1))
    after = storage.listing(str(tmp_path))
    assert before[0] != after[0]
    assert before[0].size == after[0].size
    assert before[1] == after[1]


def test_a_listing_of_no_folder_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("missing", "file", "file/below"):
        with pytest.raises(InputError, match=place):
            storage.listing(str(tmp_path / place))


def test_reading_no_file_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for place in ("missing", "folder", "file/below"):
        with pytest.raises(InputError, match=place):
            storage.read(str(tmp_path / place))


def test_reading_gives_a_file_piece_by_piece(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "file"), b"0123456789")
    with storage.reading(str(tmp_path / "file")) as file:
        assert [file.read(4), file.read(4), file.read(4)] == [b"0123", b"4567", b"89"]


def test_places_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.absolute("runs/../out/") == str(tmp_path / "out")
    assert storage.absolute("~/data") == "/home/somebody/data"
    assert storage.absolute("/a/b") == "/a/b"


@pytest.mark.parametrize("uri", ["gs://bucket/a", "http://host/a", "ftp://host/a"])
def test_a_scheme_that_is_not_supported_is_an_input_error(uri: str) -> None:
    with pytest.raises(InputError, match=uri):
        storage.absolute(uri)


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("/a", "b"), "/a/b"),
        (("/a/", "b", "c.csv"), "/a/b/c.csv"),
        (("/a//", "b"), "/a/b"),
        (("s3://bucket", "b"), "s3://bucket/b"),
    ],
)
def test_join_puts_one_slash_between_names(parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(*parts) == joined


def test_join_from_the_root_stays_at_the_root() -> None:
    assert os.path.normpath(storage.join("/", "a")) in ("/a", "//a")
    assert storage.absolute(storage.join("/", "a")) in ("/a", "//a")


def test_files_and_folders_exist_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert storage.exists(str(tmp_path))
    assert storage.exists(str(tmp_path / "file"))
    assert not storage.exists(str(tmp_path / "missing"))
