"""Reading from S3, and the state of an object. `router` documents the functions."""

import errno
import hashlib
import io
import re
import tempfile
import time
from typing import Any, BinaryIO

from botocore import exceptions

from carvana_ray.errors import (
    FileChangedError,
    FileMissingError,
    FileTooLargeError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import CHANGED, NOT_S3, S3_SCHEME, FileInfo
from carvana_ray.storage.s3_client import client, one_line, translate_errors

MAX_TRIES = 4  # of a read with a bad body
SHA256 = "carvana-ray-sha256"  # metadata key: SHA-256 of an object written by this program

_BODY_ERRORS = (
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
)


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    return bucket, key


def state(uri: str) -> str:
    try:
        answer = _get(uri, None)  # a HEAD does not tell a missing bucket from a missing file
    except FileMissingError:
        return ""
    answer["Body"].close()
    return etag(uri, answer)


def etag(uri: str, answer: dict[str, Any]) -> str:
    """Return the ETag in an answer, without quotes: Ceph 16 compares it with a bare If-Match."""
    if "ETag" not in answer:
        raise StorageUnavailableError(errno.EIO, NOT_S3, uri)
    return str(answer["ETag"]).strip('"')


def read(uri: str, at_most: int | None, expected: FileInfo | None) -> bytes:
    buffer = io.BytesIO()
    _fetch(uri, buffer, at_most, expected)
    return buffer.getvalue()


def open_read(uri: str) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    _fetch(uri, file, None, None)
    file.seek(0)
    return file


def _fetch(uri: str, target: BinaryIO, at_most: int | None, expected: FileInfo | None) -> None:
    """Write the contents of an object to `target`; repeat a read whose body is bad."""
    for attempt in range(MAX_TRIES):
        time.sleep(attempt * 0.2)
        target.seek(0)
        target.truncate()
        response = _get(uri, expected)
        length = response["ContentLength"]
        if at_most is not None and length > at_most:
            response["Body"].close()
            raise FileTooLargeError(f"{uri}: {length} bytes, at most {at_most} are allowed")
        algorithm, checksum = _checksum(uri, response)
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            for chunk in response["Body"].iter_chunks(2**20):
                digest.update(chunk)
                target.write(chunk)
        except _BODY_ERRORS as error:
            problem = one_line(str(error))
            continue
        if target.tell() == length and checksum in ("", digest.hexdigest()):
            return
        problem = "the received bytes differ from the written ones"
    raise StorageUnavailableError(errno.EIO, f"{problem}, in all {MAX_TRIES} attempts", uri)


def _get(uri: str, expected: FileInfo | None) -> dict[str, Any]:
    bucket, key = split(uri)
    condition = {"IfMatch": expected.version} if expected else {}
    with translate_errors(uri):
        response: dict[str, Any] = client().get_object(
            Bucket=bucket, Key=key, ChecksumMode="ENABLED", **condition
        )
    found = (etag(uri, response), response["ContentLength"])
    if expected and found != (expected.version, expected.size):  # the store ignores If-Match
        response["Body"].close()
        raise FileChangedError(errno.ESTALE, CHANGED, uri)
    return response


def _checksum(uri: str, response: dict[str, Any]) -> tuple[str, str]:
    """Return the algorithm and the hexadecimal digest of an object; "" if the digest is unknown."""
    if sha256 := response.get("Metadata", {}).get(SHA256, ""):
        return "sha256", sha256
    # The ETag is the MD5, except of multipart uploads and of objects encrypted with customer keys.
    md5 = etag(uri, response).lower()
    encrypted = response.get("ServerSideEncryption", "AES256") != "AES256"
    if encrypted or "SSECustomerAlgorithm" in response or not re.fullmatch("[0-9a-f]{32}", md5):
        md5 = ""
    return "md5", md5
