"""crc32.csv: read as a table of checksums, or refused with its name."""

import errno
import os
from pathlib import Path

import pytest

from carvana_ray.data.checksums import load_checksums
from carvana_ray.errors import StorageUnavailableError


def test_without_a_list_no_checksum_is_known(tmp_path: Path) -> None:
    assert load_checksums(str(tmp_path)) == {}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_checksums_is_read(tmp_path: Path, end: str) -> None:
    lines = ["img,crc32", "a_01.jpg,0000000a", "b_01.jpg,FFFFffff", '"c, d.jpg",7', "Käfer.jpg,0"]
    (tmp_path / "crc32.csv").write_text(end.join(lines) + end, encoding="utf-8", newline="")
    assert load_checksums(str(tmp_path)) == {
        "a_01.jpg": 10,
        "b_01.jpg": 0xFFFFFFFF,
        "c, d.jpg": 7,
        "Käfer.jpg": 0,
    }


def test_the_last_line_needs_no_line_end(tmp_path: Path) -> None:
    (tmp_path / "crc32.csv").write_text("img,crc32\na.jpg,ff")
    assert load_checksums(str(tmp_path)) == {"a.jpg": 255}


def test_a_list_on_a_disk_that_is_not_mounted_is_an_error_and_not_missing(tmp_path: Path) -> None:
    (tmp_path / "crc32.csv").symlink_to(tmp_path / "disk" / "crc32.csv")
    with pytest.raises(StorageUnavailableError, match=r"crc32\.csv: a link to a file"):
        load_checksums(str(tmp_path))


def test_a_list_that_cannot_be_looked_at_is_an_error_and_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(StorageUnavailableError, match=r"crc32\.csv: Input/output error"):
        load_checksums("/data")
    monkeypatch.undo()


def test_a_list_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "crc32.csv").write_text("img,crc32\n")
    assert load_checksums(str(tmp_path)) == {}
