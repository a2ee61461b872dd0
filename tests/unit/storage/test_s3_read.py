"""Reads from S3 with a condition: the contents are those of the listed version."""

from typing import Any

import pytest
from support.s3_buckets import check_message, put
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.errors import FileChangedError, FileMissingError
from carvana_ray.storage import s3_client


def test_only_the_listed_version_is_read(server: Server, home: str) -> None:
    for name in ("a", "b", "c"):
        put(server, f"{home}/{name}", b"123")
    entries = storage.list_files(home)
    uris = [f"{home}/{entry.name}" for entry in entries]
    put(server, uris[1], b"456")
    storage.remove(uris[2])
    first, second, third = storage.read_many(uris, expected=entries)
    assert first == b"123"
    assert isinstance(second, FileChangedError)
    assert second.strerror == "it changed since it was listed"
    check_message(second, uris[1], server)
    assert isinstance(third, FileMissingError)
    assert storage.read(uris[1]) == b"456", "without an expectation any version is read"


def test_a_store_that_ignores_the_condition_of_a_read_is_noticed(server: Server, home: str) -> None:
    put(server, f"{home}/a", b"123")
    (entry,) = storage.list_files(home)

    def ignore(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-Match")

    s3_client.client().meta.events.register("before-call.s3.GetObject", ignore)
    assert storage.read(f"{home}/a", expected=entry) == b"123"
    put(server, f"{home}/a", b"456")
    with pytest.raises(FileChangedError, match="changed since"):
        storage.read(f"{home}/a", expected=entry)


def test_a_file_that_changes_between_two_tries_is_not_read(server: Server, home: str) -> None:
    """The body of the first try is bad, and by the second try another version is there."""
    put(server, f"{home}/a", b"1" * 1000)
    (entry,) = storage.list_files(home)

    def spoil(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Metadata"] = {"carvana-ray-sha256": "0" * 64}
        put(server, f"{home}/a", b"2" * 1000)

    s3_client.client().meta.events.register("after-call.s3.GetObject", spoil)
    with pytest.raises(FileChangedError, match="changed since"):
        storage.read(f"{home}/a", expected=entry)
