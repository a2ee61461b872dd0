"""Buckets seen from outside: written, listed and read without the code under test."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.storage import s3_client, s3_write

MIB = 2**20
# Every operation on one file or folder, by name.
OPERATIONS = {
    "read": storage.read,
    "open_read": storage.open_read,
    "list_files": storage.list_files,
    "list_dirs": storage.list_dirs,
    "exists": storage.exists,
    "write": lambda uri: storage.write_atomic(uri, b"x"),
    "replace": lambda uri: storage.write_atomic(uri, b"x", replace=True),
    "atomic_writer": lambda uri: write_through(uri, b"x"),
    "multipart": lambda uri: write_through(uri, b"x" * (s3_write.PART_BYTES + 1)),
    "state": storage.state,
    "remove": storage.remove,
    "remove_dir": storage.remove_dir,
}


@pytest.fixture
def part_bytes(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size of a part: the smallest that S3 allows."""
    monkeypatch.setattr(s3_write, "PART_BYTES", 5 * MIB)
    return 5 * MIB


def write_through(uri: str, data: bytes) -> None:
    """Write a file through `storage.atomic_writer`."""
    with storage.atomic_writer(uri) as file:
        file.write(data)


def put(server: Server, uri: str, data: bytes = b"x") -> None:
    """Write one object."""
    bucket, key = _split(uri)
    server.client().put_object(Bucket=bucket, Key=key, Body=data)


def keys(server: Server, home: str) -> list[str]:
    """Return the keys of a bucket, in order."""
    pages = server.client().get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=home.removeprefix("s3://"))
    return [item["Key"] for page in found for item in page.get("Contents", [])]


def unfinished_uploads(server: Server, home: str) -> list[Any]:
    """Return the multipart uploads of a bucket that were neither completed nor aborted."""
    found = server.client().list_multipart_uploads(Bucket=home.removeprefix("s3://"))
    return list(found.get("Uploads", []))


def head(server: Server, uri: str) -> dict[str, Any]:
    """Return the headers of an object; its ETag without quotes."""
    bucket, key = _split(uri)
    found = dict(server.client().head_object(Bucket=bucket, Key=key))
    return found | {"ETag": found["ETag"].strip('"')}


class _Body(io.BytesIO):
    """The body of an answer, as urllib3 returns it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def answer_instead(operation: str, status: int, page: bytes) -> None:
    """Let the requests of an operation be answered by something that is not the store."""

    def answer(request: Any, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, status, {}, _Body(page))

    s3_client.client().meta.events.register(f"before-send.s3.{operation}", answer)


def deny(server: Server, home: str, action: str, resource: str) -> None:
    """Deny an action to all users, the owner included."""
    bucket = home.removeprefix("s3://")
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": f"arn:aws:s3:::{bucket}{resource}",
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    server.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def upload(server: Server, folder: Path, uri: str) -> None:
    """Write all files of a local folder below a URI."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(server, f"{uri}/{path.relative_to(folder)}", path.read_bytes())


def download(server: Server, uri: str) -> dict[str, bytes]:
    """Return the contents of all objects below a URI, by their keys below it."""
    bucket, prefix = _split(uri)
    found = {}
    for page in (
        server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    ):
        for item in page.get("Contents", []):
            body = server.client().get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            found[item["Key"].removeprefix(f"{prefix}/")] = body
    return found


def check_message(error: BaseException, uri: str, server: Server | None = None) -> None:
    """Check that an error is one line that starts with the URI and holds no secret."""
    assert str(error).startswith(f"{uri}: ")
    assert "\n" not in str(error)
    if server:
        assert server.secret_key not in str(error)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
