"""URIs: which store they belong to, and their parts."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.errors import FileMissingError, InputError


def test_local_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.resolve("runs/../out/") == str(tmp_path / "out")
    assert storage.resolve("~/data") == "/home/somebody/data"
    assert storage.resolve("/a/b") == "/a/b"


@pytest.mark.parametrize("uri", ["gs://bucket/a", "http://host/a", "ftp://host/a"])
def test_an_unsupported_scheme_is_an_input_error(uri: str) -> None:
    with pytest.raises(InputError, match=uri):
        storage.resolve(uri)


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
    assert storage.resolve(storage.join("/", "a")) in ("/a", "//a")


@pytest.mark.parametrize(
    ("uri", "folder"), [("/a/b/c.csv", "/a/b"), ("/a/b", "/a"), ("/a", "/"), ("a", "")]
)
def test_the_parent_is_the_containing_folder(uri: str, folder: str) -> None:
    assert storage.parent(uri) == folder


def test_parent_undoes_join() -> None:
    assert storage.parent(storage.join("/a/b", "c")) == "/a/b"
    assert storage.name(storage.join("/a/b", "c")) == "c"


def test_many_local_files_come_in_order_with_their_errors(tmp_path: Path) -> None:
    check_read_many(str(tmp_path))


def test_many_files_of_s3_come_in_order_with_their_errors(
    server: Server, bucket: Callable[[Server], str]
) -> None:
    check_read_many(bucket(server))


def check_read_many(home: str) -> None:
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        storage.write_atomic(f"{home}/{name}", name.encode())
    storage.remove(f"{home}/07")
    found = list(storage.read_many([f"{home}/{name}" for name in names]))
    assert isinstance(found.pop(7), FileMissingError)
    assert found == [name.encode() for name in names if name != "07"]
