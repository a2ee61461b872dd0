"""The S3 client: one per process, found by its environment; its errors name file and cause."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.commands import REPOSITORY
from support.s3_buckets import OPERATIONS, check_message
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.errors import InputError, StorageAccessError, StorageUnavailableError
from carvana_ray.storage import s3_client

Bucket = Callable[[Server], str]
every_operation = pytest.mark.parametrize("operate", OPERATIONS.values(), ids=OPERATIONS.keys())


@every_operation
def test_a_missing_bucket_is_an_access_error(
    server: Server, bucket: Bucket, operate: Callable[[str], object]
) -> None:
    bucket(server)
    uri = "s3://no-such-bucket-anywhere/folder/file"
    with pytest.raises(StorageAccessError, match="no such bucket") as caught:
        operate(uri)
    check_message(caught.value, uri, server)


@every_operation
def test_a_wrong_secret_is_reported_at_once_and_not_repeated(
    rgw: Server,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    operate: Callable[[str], object],
) -> None:
    uri = f"{bucket(rgw)}/file"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-secret")
    s3_client._make_client.cache_clear()
    began = time.monotonic()
    with pytest.raises(StorageAccessError, match="secret") as caught:
        operate(uri)
    assert time.monotonic() - began < 60
    check_message(caught.value, uri, rgw)
    assert "CANARY" not in str(caught.value)


def test_an_unknown_access_key_is_an_access_error(
    rgw: Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket(rgw)}/file"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    s3_client._make_client.cache_clear()
    with pytest.raises(StorageAccessError, match="access key") as caught:
        storage.read(uri)
    check_message(caught.value, uri, rgw)


def test_missing_credentials_are_an_access_error(
    rgw: Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket(rgw)}/file"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3_client._make_client.cache_clear()
    with pytest.raises(StorageAccessError, match="credentials") as caught:
        storage.read(uri)
    check_message(caught.value, uri, rgw)


def test_an_endpoint_that_does_not_answer_is_unavailable_and_no_input_error(
    s3: Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket(s3)}/file"
    monkeypatch.setattr(s3_client, "TRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3_client._make_client.cache_clear()
    with pytest.raises(StorageUnavailableError) as caught:
        storage.read(uri)
    check_message(caught.value, uri, s3)
    assert not isinstance(caught.value, InputError)


def test_plain_http_is_refused_except_on_the_loopback(
    s3: Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://ME:CANARY@192.0.2.1:9000")
    s3_client._make_client.cache_clear()
    with pytest.raises(InputError, match=r"AWS_ENDPOINT_URL .*192\.0\.2\.1.*https") as caught:
        storage.read("s3://bucket/key")
    assert "CANARY" not in str(caught.value)


def test_sixteen_threads_share_one_client_from_the_start(s3: Server, bucket: Bucket) -> None:
    """Making a client takes longer than reading thirty files."""
    bucket(s3)
    start = threading.Barrier(16)

    def client(_: int) -> int:
        start.wait()
        return id(s3_client.client())

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(client, range(16)))) == 1


def test_another_process_finds_the_server_by_its_environment(
    server: Server, bucket: Bucket
) -> None:
    uri = f"{bucket(server)}/file"
    storage.write_atomic(uri, b"found")
    code = f"from carvana_ray import storage; print(storage.read({uri!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **server.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "b'found'\n", done.stderr
