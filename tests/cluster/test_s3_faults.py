"""S3 with faults of network and store: the same results, or an error that names file and cause.

Tests also count the requests, because layers of retries that multiply take hours.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.retries.standard import ExponentialBackoff
from support.s3_buckets import (
    check_message,
    keys,
    part_bytes,
    put,
    unfinished_uploads,
    write_through,
)
from support.s3_servers import Faulty, Server, faulty, why_no_proxy

from carvana_ray import storage
from carvana_ray.errors import InputError, StorageAccessError, StorageUnavailableError
from carvana_ray.storage import s3_client, s3_read, s3_write

__all__ = ["part_bytes"]  # a fixture

DATA = os.urandom(100_000)


@pytest.fixture
def home(
    faulty_s3: Faulty, bucket: Callable[[Server], str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URI of a bucket with one file, behind the proxy; retries follow without a pause."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
    for module in (s3_read, s3_write):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None))
    uri = bucket(faulty_s3)
    put(faulty_s3, f"{uri}/file", DATA)
    faulty_s3.calm()
    return uri


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """The timeout of a request in seconds, made short."""
    monkeypatch.setattr(s3_client, "READ_S", 1)
    s3_client._make_client.cache_clear()
    return 1


def seen(proxy: Faulty) -> list[tuple[str, str]]:
    """Return method and fault (or "pass") of each request."""
    return [(method, kind) for method, _, kind in proxy.requests()]


@pytest.mark.parametrize("kind", ["503", "500", "reset"])
def test_a_read_survives_four_faults_in_a_row(faulty_s3: Faulty, home: str, kind: str) -> None:
    faulty_s3.fault(kind, match="/file", method="GET", n=4)
    assert storage.read(f"{home}/file") == DATA
    assert seen(faulty_s3) == [*[("GET", kind)] * 4, ("GET", "pass")]


@pytest.mark.parametrize("kind", ["503", "500", "reset"])
def test_a_write_survives_four_faults_in_a_row(faulty_s3: Faulty, home: str, kind: str) -> None:
    faulty_s3.fault(kind, method="PUT", n=4)
    assert storage.write_atomic(f"{home}/new", DATA) is True
    assert seen(faulty_s3) == [*[("PUT", kind)] * 4, ("PUT", "pass")]
    assert storage.read(f"{home}/new") == DATA


@pytest.mark.parametrize("kind", ["503", "500", "reset", "lost"])
def test_a_listing_survives_four_faults_in_a_row(faulty_s3: Faulty, home: str, kind: str) -> None:
    before = storage.list_files(home)
    faulty_s3.calm()
    faulty_s3.fault(kind, query="list-type=2", n=4)
    assert storage.list_files(home) == before
    assert seen(faulty_s3) == [*[("GET", kind)] * 4, ("GET", "pass")]


@pytest.mark.parametrize("kind", ["503", "reset", "lost"])
def test_a_removal_survives_four_faults_in_a_row(faulty_s3: Faulty, home: str, kind: str) -> None:
    faulty_s3.fault(kind, method="DELETE", n=4)
    storage.remove(f"{home}/file")
    assert seen(faulty_s3) == [*[("DELETE", kind)] * 4, ("DELETE", "pass")]
    assert keys(faulty_s3, home) == []


def test_reads_of_many_files_survive_faults_of_each(faulty_s3: Faulty, home: str) -> None:
    uris = [f"{home}/{number}" for number in range(20)]
    for uri in uris:
        put(faulty_s3, uri, uri.encode())
    faulty_s3.calm()
    faulty_s3.fault("503", method="GET", n=2)
    assert list(storage.read_many(uris)) == [uri.encode() for uri in uris]
    assert len(faulty_s3.requests()) == 3 * len(uris)


def test_a_request_without_an_answer_is_repeated(
    faulty_s3: Faulty, home: str, impatient: float
) -> None:
    faulty_s3.fault("stall", method="GET", s=60 * impatient)
    began = time.monotonic()
    assert storage.read(f"{home}/file") == DATA
    assert time.monotonic() - began < 30 * impatient
    assert seen(faulty_s3) == [("GET", "stall"), ("GET", "pass")]


def test_a_read_whose_body_hangs_is_repeated(
    faulty_s3: Faulty, home: str, impatient: float
) -> None:
    faulty_s3.fault("hang", method="GET")
    began = time.monotonic()
    assert storage.read(f"{home}/file") == DATA
    assert time.monotonic() - began < 30 * impatient
    assert seen(faulty_s3) == [("GET", "hang"), ("GET", "pass")]


@pytest.mark.parametrize("kind", ["short", "cut", "flip"])
@pytest.mark.parametrize("read", [storage.read, lambda uri: storage.open_read(uri).read()])
def test_a_read_with_a_bad_body_is_repeated(
    faulty_s3: Faulty, home: str, kind: str, read: Callable[[str], bytes]
) -> None:
    faulty_s3.fault(kind, match="/file", method="GET", n=2)
    assert read(f"{home}/file") == DATA
    assert seen(faulty_s3) == [("GET", kind), ("GET", kind), ("GET", "pass")]


@pytest.mark.parametrize("kind", ["short", "flip"])
def test_a_body_that_is_always_bad_is_an_error(faulty_s3: Faulty, home: str, kind: str) -> None:
    faulty_s3.fault(kind, match="/file", method="GET", n=None)
    with pytest.raises(StorageUnavailableError, match="differ from the written") as caught:
        storage.read(f"{home}/file")
    check_message(caught.value, f"{home}/file")
    assert seen(faulty_s3) == [("GET", kind)] * s3_read.MAX_TRIES


@pytest.mark.parametrize("kind", ["short", "cut", "flip"])
def test_a_read_of_a_multipart_file_with_a_bad_body_is_repeated(
    faulty_s3: Faulty, home: str, part_bytes: int, kind: str
) -> None:
    """The ETag of a multipart upload is not its MD5."""
    data = os.urandom(2 * part_bytes + 1)
    write_through(f"{home}/large", data)
    faulty_s3.fault(kind, match="/large", method="GET")
    with storage.open_read(f"{home}/large") as file:
        assert file.read() == data


@pytest.mark.parametrize("kind", ["short", "cut"])
def test_half_a_listing_is_requested_again(faulty_s3: Faulty, home: str, kind: str) -> None:
    before = storage.list_files(home)
    faulty_s3.calm()
    faulty_s3.fault(kind, query="list-type=2", n=2)
    assert storage.list_files(home) == before
    assert seen(faulty_s3) == [*[("GET", kind)] * 2, ("GET", "pass")]


def test_a_flipped_bit_is_detected_in_files_of_any_length(faulty_s3: Faulty, home: str) -> None:
    for length in (1, 2, 3, 1000):
        put(faulty_s3, f"{home}/{length}", b"x" * length)
        faulty_s3.fault("flip", match=f"/{length}", method="GET")
        assert storage.read(f"{home}/{length}") == b"x" * length


@pytest.mark.parametrize("replace", [False, True])
def test_a_write_whose_answer_is_lost_succeeds(faulty_s3: Faulty, home: str, replace: bool) -> None:
    faulty_s3.fault("lost", method="PUT", n=2)
    assert storage.write_atomic(f"{home}/new", DATA, replace=replace) is True
    assert seen(faulty_s3)[:3] == [("PUT", "lost"), ("PUT", "lost"), ("PUT", "pass")]
    assert len(faulty_s3.requests()) <= 4
    assert storage.read(f"{home}/new") == DATA


def test_a_replacement_of_a_state_whose_answer_is_lost_succeeds(
    faulty_s3: Faulty, home: str
) -> None:
    state = storage.state(f"{home}/file")
    faulty_s3.fault("lost", method="PUT", n=2)
    assert storage.write_atomic(f"{home}/file", b"new", expected=state)
    assert storage.read(f"{home}/file") == b"new"
    assert not storage.write_atomic(f"{home}/file", b"newer", expected=state)


def test_a_write_to_an_existing_file_whose_answer_is_lost_is_refused(
    faulty_s3: Faulty, home: str
) -> None:
    faulty_s3.fault("lost", method="PUT")
    assert storage.write_atomic(f"{home}/file", b"other") is False
    assert storage.read(f"{home}/file") == DATA


@pytest.fixture
def corrupting(
    rgw: Server, bucket: Callable[[Server], str], tmp_path: Path
) -> Iterator[tuple[Faulty, str]]:
    """A proxy in front of the gateway, and a bucket; moto does not verify what it receives."""
    if reason := why_no_proxy():
        pytest.skip(reason)
    with faulty(rgw, tmp_path) as proxy:
        yield proxy, bucket(proxy)


def test_a_write_with_a_flipped_bit_is_never_stored(corrupting: tuple[Faulty, str]) -> None:
    proxy, home = corrupting
    proxy.fault("flip-sent", method="PUT", n=None)
    with pytest.raises((StorageUnavailableError, StorageAccessError)) as caught:
        storage.write_atomic(f"{home}/new", DATA)
    check_message(caught.value, f"{home}/new", proxy)
    proxy.calm()
    assert keys(proxy, home) == []
    proxy.fault("flip-sent", method="PUT", n=1)
    assert storage.write_atomic(f"{home}/new", DATA) is True
    assert storage.read(f"{home}/new") == DATA


def test_a_part_with_a_flipped_bit_is_never_stored(
    corrupting: tuple[Faulty, str], part_bytes: int
) -> None:
    proxy, home = corrupting
    data = os.urandom(2 * part_bytes + 1)
    proxy.fault("flip-sent", query="partNumber=2", n=None)
    with pytest.raises((StorageUnavailableError, StorageAccessError)) as caught:
        write_through(f"{home}/new", data)
    check_message(caught.value, f"{home}/new", proxy)
    proxy.calm()
    assert keys(proxy, home) == []
    assert unfinished_uploads(proxy, home) == []
    proxy.fault("flip-sent", query="partNumber=2", n=1, per="all")
    write_through(f"{home}/new", data)
    assert storage.read(f"{home}/new") == data
    assert unfinished_uploads(proxy, home) == []


@pytest.mark.parametrize("kind", ["503", "reset", "lost"])
@pytest.mark.parametrize(
    ("method", "query"),
    [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId")],
    ids=["begin", "part", "complete"],
)
def test_a_multipart_upload_survives_two_faults_of_each_request(
    faulty_s3: Faulty, home: str, part_bytes: int, kind: str, method: str, query: str
) -> None:
    data = os.urandom(2 * part_bytes + 1)
    faulty_s3.fault(kind, match="/large", method=method, query=query, n=2, per="all")
    write_through(f"{home}/large", data)
    requests = faulty_s3.requests()
    assert [fault for _, _, fault in requests].count(kind) == 2
    assert len(requests) <= 5 + 2 + 1
    assert storage.read(f"{home}/large") == data


@pytest.mark.parametrize("kind", ["503", "reset", "403"])
@pytest.mark.parametrize("query", ["partNumber=3", "uploadId"])
def test_a_failed_multipart_upload_leaves_nothing(
    faulty_s3: Faulty,
    home: str,
    part_bytes: int,
    kind: str,
    query: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client, "TRIES", 3)
    s3_client._make_client.cache_clear()
    method = "PUT" if "part" in query else "POST"
    faulty_s3.fault(kind, match="/file", method=method, query=query, n=None)
    with pytest.raises(StorageUnavailableError) as caught:
        write_through(f"{home}/file", b"x" * (2 * part_bytes + 1))
    check_message(caught.value, f"{home}/file")
    assert len([fault for _, fault in seen(faulty_s3) if fault == kind]) == (
        1 if kind == "403" else 3
    )
    assert storage.read(f"{home}/file") == DATA, "the old file stays"
    assert unfinished_uploads(faulty_s3, home) == []


@pytest.mark.parametrize(("kind", "says"), [("403", "do not permit"), ("expired", "expired")])
@pytest.mark.parametrize(
    "act",
    [
        lambda home: storage.read(f"{home}/file"),
        lambda home: storage.write_atomic(f"{home}/file", b"x"),
        lambda home: storage.remove(f"{home}/file"),
        lambda home: storage.exists(f"{home}/file"),
    ],
    ids=["read", "write", "remove", "exists"],
)
def test_an_access_error_is_reported_without_a_retry(
    faulty_s3: Faulty, home: str, kind: str, says: str, act: Callable[[str], object]
) -> None:
    faulty_s3.fault(kind, n=None)
    began = time.monotonic()
    with pytest.raises(StorageAccessError, match=says) as caught:
        act(home)
    assert time.monotonic() - began < 60
    check_message(caught.value, f"{home}/file", faulty_s3)
    assert len(faulty_s3.requests()) == 1


@pytest.mark.parametrize("kind", ["503", "500", "reset"])
@pytest.mark.parametrize(
    "act",
    [
        lambda home: storage.read(f"{home}/file"),
        lambda home: storage.write_atomic(f"{home}/file", b"x"),
        lambda home: storage.exists(f"{home}/file"),
    ],
    ids=["read", "write", "exists"],
)
def test_a_permanent_fault_is_an_error_that_names_file_and_cause(
    faulty_s3: Faulty, home: str, kind: str, act: Callable[[str], object]
) -> None:
    faulty_s3.fault(kind, n=None)
    with pytest.raises(StorageUnavailableError) as caught:
        act(home)
    check_message(caught.value, f"{home}/file", faulty_s3)
    assert {"503": "503 SlowDown", "500": "500 InternalError", "reset": "closed"}[kind] in str(
        caught.value
    )
    assert not isinstance(caught.value, InputError)
    assert seen(faulty_s3) == [(faulty_s3.requests()[0][0], kind)] * s3_client.TRIES


def test_a_store_that_never_answers_is_given_up_in_bounded_time(
    faulty_s3: Faulty, home: str, impatient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "TRIES", 2)
    faulty_s3.fault("stall", n=None, s=60 * impatient)
    began = time.monotonic()
    with pytest.raises(StorageUnavailableError) as caught:
        storage.read(f"{home}/file")
    assert time.monotonic() - began < 30 * impatient
    check_message(caught.value, f"{home}/file")
    assert len(faulty_s3.requests()) == 2


@pytest.mark.slow
def test_with_real_pauses_a_permanent_fault_ends_within_two_minutes(
    s3: Server, bucket: Callable[[Server], str], tmp_path: Path
) -> None:
    if reason := why_no_proxy():
        pytest.skip(reason)
    with faulty(s3, tmp_path) as proxy:
        home = bucket(proxy)
        proxy.fault("503", n=None)
        began = time.monotonic()
        with pytest.raises(StorageUnavailableError, match="503 SlowDown") as caught:
            storage.read(f"{home}/file")
        assert time.monotonic() - began < 120
        check_message(caught.value, f"{home}/file")
