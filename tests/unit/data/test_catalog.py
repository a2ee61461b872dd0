"""The images of a job: listed in order with their checksums, or refused by name."""

import errno
import importlib.util
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from carvana_ray import storage
from carvana_ray.data import catalog
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.checksums import load_checksums
from carvana_ray.errors import InputError, StorageAccessError, StorageUnavailableError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three files that are images only by their names."""
    (tmp_path / "test").mkdir()
    for name in ("b_01.jpg", "a_01.jpg", "c_01.PNG"):
        (tmp_path / "test" / name).write_bytes(name.encode())
    return tmp_path


def read(folder: Path, **changes: object) -> Catalog:
    return catalog.load_catalog(str(folder), **changes)  # type: ignore[arg-type]


def write_list(folder: Path, *names: str) -> None:
    lines = ["img,rle_mask", *(f"{name},1 1" for name in names)]
    (folder / "sample_submission.csv").write_text("\n".join(lines) + "\n")


def test_without_a_list_of_checksums_the_catalog_has_none(folder: Path) -> None:
    assert read(folder).crcs == {}


def test_links_to_a_disk_that_is_not_mounted_are_images_without_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "disk" / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"x")
    found = read(tmp_path)
    assert [(entry.name, entry.size) for entry in found.entries] == [("a.jpg", 0), ("b.jpg", 1)]


@pytest.mark.parametrize("name", ["sample_submission.csv", "crc32.csv", "test"])
def test_a_link_to_a_disk_that_is_not_mounted_is_not_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    with pytest.raises(StorageUnavailableError, match=f"{name}: a link to a file that does not"):
        read(tmp_path)


def test_the_checksums_of_a_list_are_those_of_the_files(folder: Path) -> None:
    files = sorted((folder / "test").iterdir())
    lines = [f"{file.name},{zlib.crc32(file.read_bytes()):08x}" for file in files]
    (folder / "crc32.csv").write_text("\n".join(["img,crc32", *lines, ""]))
    found = read(folder).crcs
    assert found == {file.name: zlib.crc32(file.read_bytes()) for file in files}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a.jpg,0000000a\n",
        b"crc32,img\n0000000a,a.jpg\n",
        b"img,crc32,size\na.jpg,0000000a,5\n",
        b"img,crc32\na.jpg,0000000g\n",
        b"img,crc32\na.jpg,\n",
        b"img,crc32\na.jpg,1.5\n",
        b"img,crc32\na.jpg\n",
        b"img,crc32\na.jpg,0000000a,more\n",
        b"img,crc32\nK\xe4fer.jpg,0000000a\n",
        b"\xff\xd8\xff\xe0" * 100,
        b"PK\3\4" + bytes(range(256)),
        b"img,crc32\na.jpg,-1\n",
        b"img,crc32\na.jpg,100000000\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_an_invalid_list_of_checksums_is_an_input_error_that_names_it(
    folder: Path, data: bytes
) -> None:
    file = folder / "crc32.csv"
    file.write_bytes(data)
    for load in (lambda: load_checksums(str(folder)), lambda: read(folder)):
        with pytest.raises(InputError) as caught:
            load()
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)


def test_a_catalog_lists_the_images_of_test_if_that_folder_exists(folder: Path) -> None:
    (folder / "outside.jpg").touch()
    found = read(folder)
    assert found.folder == str(folder / "test")
    assert found.order == ["a_01.jpg", "b_01.jpg", "c_01.PNG"]
    assert [entry.name for entry in found.entries] == found.order
    assert [entry.size for entry in found.entries] == [8, 8, 8]
    assert found.size is None
    assert read(folder / "test").entries == found.entries


def test_a_limit_takes_the_first_images_by_name(folder: Path) -> None:
    assert read(folder, limit=2).order == ["a_01.jpg", "b_01.jpg"]
    write_list(folder, "c_01.PNG", "b_01.jpg", "a_01.jpg")
    found = read(folder, limit=2)
    assert found.order == ["b_01.jpg", "a_01.jpg"]
    assert [entry.name for entry in found.entries] == ["a_01.jpg", "b_01.jpg"]


def test_a_list_sets_the_order_and_kaggle_s_size(folder: Path) -> None:
    write_list(folder, "c_01.PNG", "a_01.jpg", "b_01.jpg")
    found = read(folder)
    assert found.order == ["c_01.PNG", "a_01.jpg", "b_01.jpg"]
    assert [entry.name for entry in found.entries] == sorted(found.order)
    assert found.size == (1280, 1918)


@pytest.mark.parametrize("with_list", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "=cmd().jpg",
        "+1.jpg",
        "-rf.jpg",
        "@sum.jpg",
        " a.jpg",
        "a\\b.jpg",
        "tab\t.jpg",
        "new\nline.jpg",
        "color\x1b[31m.jpg",
        b"K\xe4fer.jpg",
    ],
    ids=ascii,
)
def test_an_image_with_a_hostile_name_is_refused(
    folder: Path, name: str | bytes, with_list: bool
) -> None:
    Path(folder, "test", os.fsdecode(name)).touch()
    if with_list:
        write_list(folder, "a_01.jpg", "b_01.jpg", "c_01.PNG")
    with pytest.raises(InputError) as caught:
        read(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'test'}: 1 unsafe file name")
    assert message.isprintable()


def test_several_hostile_names_are_shown(folder: Path) -> None:
    for number in range(10):
        (folder / "test" / f"={number}.jpg").touch()
    with pytest.raises(InputError, match=r": 10 unsafe file names, the first is '=0\.jpg'") as end:
        read(folder)
    assert all(repr(f"={number}.jpg") in str(end.value) for number in range(10))


@pytest.mark.parametrize("denied", ["", "a", "ab"])
def test_images_without_rights_are_an_error_if_they_are_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    """Some of them must not hold back the others."""
    read_file = storage.router.read

    def guarded(uri: str, *more: Any) -> bytes:
        if storage.name(uri)[0] in denied:
            raise StorageAccessError(errno.EACCES, "Permission denied", uri)
        return read_file(uri, *more)

    for number in range(20):
        (folder / "test" / f"a_{number:03d}.jpg").touch()
    monkeypatch.setattr(storage.router, "read", guarded)
    assert len(read(folder).entries) == 23
    (folder / "test" / "c_01.PNG").unlink()
    if denied == "ab":
        with pytest.raises(StorageAccessError, match=r"a_000\.jpg: Permission denied"):
            read(folder)
    else:
        assert len(read(folder).entries) == 22


def test_a_hidden_file_is_not_an_image(folder: Path) -> None:
    (folder / "test" / "._a_01.jpg").touch()
    (folder / "test" / ".-rf.jpg").touch()
    assert len(read(folder).entries) == 3


def test_other_files_are_counted_by_kind(folder: Path) -> None:
    for name in ("notes.txt", "IMG.HEIC", ".DS_Store", "Thumbs.db", "._a_01.jpg", "LICENSE"):
        (folder / "test" / name).touch()
    for name in ("monday", "__MACOSX", ".git"):
        (folder / "test" / name).mkdir()
    expected = {".txt": 1, ".heic": 1, "system": 5, "no suffix": 1, "folder": 1}
    if importlib.util.find_spec("pillow_heif"):
        (folder / "test" / "IMG.HEIC").unlink()
        del expected[".heic"]
    assert read(folder).skipped == expected


def test_a_folder_without_images_tells_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "film.mov").touch()
    (tmp_path / "monday").mkdir()
    with pytest.raises(InputError, match=r"no images .*; left out: 1 \.mov, 1 folder"):
        read(tmp_path)
