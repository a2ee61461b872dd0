"""Conditional writes to S3: nobody replaces a version that he has not seen."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from support.additions import race
from support.s3_buckets import (
    check_message,
    head,
    keys,
    put,
    unfinished_uploads,
    write_through,
)
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.errors import FileChangedError
from carvana_ray.storage import s3_client

Bucket = Callable[[Server], str]


def test_no_addition_is_lost_when_four_processes_replace_one_file(home: str) -> None:
    assert race(f"{home}/file", processes=4, times=6) == list(range(24))


def test_a_file_is_replaced_only_in_the_expected_state(server: Server, home: str) -> None:
    uri = f"{home}/file"
    assert storage.state(uri) == ""
    assert storage.write_atomic(uri, b"first", expected="")
    assert not storage.write_atomic(uri, b"other", expected="")
    first = storage.state(uri)
    assert first == head(server, uri)["ETag"]
    assert storage.write_atomic(uri, b"second", expected=first)
    assert not storage.write_atomic(uri, b"third", expected=first)
    assert storage.read(uri) == b"second"
    assert storage.write_atomic(uri, b"second", expected=first), "the file holds these bytes"
    storage.remove(uri)
    assert not storage.write_atomic(uri, b"fourth", expected=storage.state(uri) or first)
    assert keys(server, home) == []


@pytest.mark.parametrize("parts", [0, 2], ids=["whole", "in parts"])
@pytest.mark.parametrize("old", [b"old", b""], ids=["over a file", "as a new file"])
def test_the_writer_leaves_what_another_has_published_meanwhile(
    server: Server, home: str, part_bytes: int, parts: int, old: bytes
) -> None:
    uri = f"{home}/file"
    if old:
        storage.write_atomic(uri, old)
    data = os.urandom(parts * part_bytes + 1)

    def write() -> None:
        with storage.atomic_writer(uri, storage.state(uri)) as file:
            file.write(data)
            put(server, uri, b"another's")

    with pytest.raises(FileChangedError, match="another process") as caught:
        write()
    check_message(caught.value, uri, server)
    assert storage.read(uri) == b"another's"
    assert unfinished_uploads(server, home) == []


@pytest.mark.parametrize("parts", [0, 2], ids=["whole", "in parts"])
def test_the_writer_replaces_the_expected_state(home: str, part_bytes: int, parts: int) -> None:
    uri = f"{home}/file"
    for _ in range(2):
        data = os.urandom(parts * part_bytes + 1)
        with storage.atomic_writer(uri, storage.state(uri)) as file:
            file.write(data)
        assert storage.read(uri) == data


@pytest.mark.parametrize("parts", [0, 2], ids=["whole", "in parts"])
def test_a_conditional_write_whose_first_answer_is_lost_succeeds(
    s3: Server, bucket: Bucket, part_bytes: int, parts: int
) -> None:
    """The repeated request is refused, since the first one has changed the state."""
    uri = f"{bucket(s3)}/file"
    storage.write_atomic(uri, b"old")
    refuse_after("PutObject" if not parts else "CompleteMultipartUpload")
    data = os.urandom(parts * part_bytes + 1)
    with storage.atomic_writer(uri, storage.state(uri)) as file:
        file.write(data)
    assert storage.read(uri) == data


def refuse_after(operation: str) -> None:
    """Let the requests of an operation take effect, but be answered by 412."""

    def refuse(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        http_response.status_code = 412
        parsed["Error"] = {"Code": "PreconditionFailed", "Message": ""}

    s3_client.client().meta.events.register(f"after-call.s3.{operation}", refuse)


def test_a_store_without_conditions_is_compared_directly_before_the_write(
    s3: Server, bucket: Bucket, part_bytes: int
) -> None:
    uri = f"{bucket(s3)}/file"
    without_conditions("PutObject")
    without_conditions("CompleteMultipartUpload")
    for data in (b"small", os.urandom(2 * part_bytes)):
        before = storage.state(uri)
        with storage.atomic_writer(uri, before) as file:
            file.write(data)
        assert storage.read(uri) == data
        assert not storage.write_atomic(uri, b"late", expected=before)
        with pytest.raises(FileChangedError), storage.atomic_writer(uri, before) as file:
            file.write(os.urandom(2 * part_bytes))
        assert storage.read(uri) == data


def without_conditions(operation: str) -> None:
    """Let conditional requests of an operation be refused as not implemented."""

    def refuse(params: dict[str, Any], **_: Any) -> Any:
        if {"If-Match", "If-None-Match"} & set(params["headers"]):
            return NotImplementedAnswer(), {
                "Error": {"Code": "NotImplemented", "Message": ""},
                "ResponseMetadata": {"HTTPStatusCode": 501},
            }
        return None

    s3_client.client().meta.events.register(f"before-call.s3.{operation}", refuse)


class NotImplementedAnswer:
    """The answer of a store that knows no conditions."""

    status_code = 501


def test_every_completion_of_an_upload_carries_its_condition(
    server: Server, home: str, part_bytes: int
) -> None:
    seen = []
    s3_client.client().meta.events.register(
        "before-parameter-build.s3.CompleteMultipartUpload",
        lambda params, **_: seen.append((params.get("IfMatch"), params.get("IfNoneMatch"))),
    )
    first = os.urandom(2 * part_bytes)
    with storage.atomic_writer(f"{home}/file", "") as file:
        file.write(first)
    state = storage.state(f"{home}/file")
    with storage.atomic_writer(f"{home}/file", state) as file:
        file.write(first[::-1])
    write_through(f"{home}/file", first)
    assert seen == [(None, "*"), (state, None), (None, None)]
