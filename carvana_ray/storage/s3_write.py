"""Writing to S3, with conditions. `router` documents the functions."""

import base64
import contextlib
import errno
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from boto3.s3.transfer import TransferConfig
from botocore import exceptions

from carvana_ray.errors import FileChangedError, FileMissingError, StorageAccessError
from carvana_ray.storage.base import REPLACED
from carvana_ray.storage.s3_client import ERROR_HINTS, client, error_code, translate_errors
from carvana_ray.storage.s3_read import SHA256, read, split, state

MAX_TRIES = 4  # of a rejected write
PART_BYTES = 16 * 2**20  # larger files are uploaded in parts of this size
PARALLEL_PARTS = 4

# The body was corrupted on its way, or another process is writing the same object.
_RETRIED_CODES = {"BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict"}


def write_atomic(uri: str, data: bytes, expected: str | None) -> bool:
    bucket, key = split(uri)
    md5 = hashlib.md5(data, usedforsecurity=False).digest()  # the store compares it with the body
    put = functools.partial(
        client().put_object,
        Bucket=bucket,
        Key=key,
        Body=data,
        ContentMD5=base64.b64encode(md5).decode(),
        Metadata={SHA256: hashlib.sha256(data).hexdigest()},
    )
    try:
        with translate_errors(uri):
            # On False another writer was first, or an earlier try succeeded and its answer was lost
            return _send_if(uri, expected, put) or _holds(uri, data)
    except FileMissingError as error:  # a PUT answered by 404
        raise StorageAccessError(errno.ENOENT, ERROR_HINTS["NoSuchBucket"], uri) from error


def _holds(uri: str, data: bytes) -> bool:
    with contextlib.suppress(FileMissingError):
        return read(uri, None, None) == data
    return False


def _send_if(uri: str, expected: str | None, call: Callable[..., object]) -> bool:
    """Make a writing call under the condition that the object has the state `expected`.

    Return False if it has another one.
    """
    if expected is None:
        _send(call)
        return True
    try:
        if expected:
            _send(call, IfMatch=expected)
        else:
            _send(call, IfNoneMatch="*")
    except FileChangedError:
        return False
    except exceptions.ClientError as error:
        code = error_code(error)
        if code in ("PreconditionFailed", "NoSuchKey"):  # NoSuchKey: somebody has removed it
            return False
        if code != "NotImplemented":
            raise
        if state(uri) != expected:
            return False
        _send(call)  # the store knows no conditions
    return True


def ignores_conditions(uri: str) -> bool:
    """Return whether the store replaces an existing file whatever condition a request has."""
    bucket, key = split(uri)
    with translate_errors(uri):
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": "0" * 32}):
            try:
                client().put_object(Bucket=bucket, Key=key, Body=b"", **condition)
                return True
            except exceptions.ClientError as error:
                if error_code(error) == "NotImplemented":
                    return True
                if error_code(error) != "PreconditionFailed":
                    raise
    return False


def _send(call: Callable[..., object], **condition: str) -> None:
    """Make a writing call; repeat it on errors that a repetition can fix."""
    for attempt in range(1, MAX_TRIES):
        try:
            call(**condition)
            return
        except exceptions.ClientError as error:
            if error_code(error) not in _RETRIED_CODES:
                raise
        time.sleep(attempt * 0.2)
    call(**condition)


@contextlib.contextmanager
def atomic_writer(uri: str, expected: str | None) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        yield file
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        if length <= PART_BYTES:
            published = write_atomic(uri, file.read(), expected)
        else:
            with translate_errors(uri):
                published = _upload_parts(uri, file, expected)
        if not published:
            raise FileChangedError(errno.ESTALE, REPLACED, uri)


def _upload_parts(uri: str, file: BinaryIO, expected: str | None) -> bool:
    """Upload a large file in parts; the object appears when the last request succeeds.

    boto3 aborts the upload on an error, which removes its parts.
    """
    bucket, key = split(uri)
    sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    arguments: dict[str, Any] = {"Metadata": {SHA256: sha256}}
    # Stores that know no checksum headers compare each part with the SHA-256 of its signature.
    if client().meta.config.request_checksum_calculation == "when_supported":
        arguments["ChecksumAlgorithm"] = "SHA256"
    config = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=PARALLEL_PARTS,
        preferred_transfer_client="classic",
    )

    def upload(**condition: str) -> None:
        file.seek(0)
        with _last_request(uri, expected, condition):
            client().upload_fileobj(file, bucket, key, ExtraArgs=arguments, Config=config)

    try:
        return _send_if(uri, expected, upload) or _has_sha256(bucket, key, sha256)
    except exceptions.ClientError as error:
        # The last request succeeded, its answer was lost, and botocore repeated it.
        if error_code(error) == "NoSuchUpload" and _has_sha256(bucket, key, sha256):
            return True
        raise


@contextlib.contextmanager
def _last_request(uri: str, expected: str | None, condition: dict[str, str]) -> Iterator[None]:
    """Put a condition on the request that completes the upload of an object in parts.

    boto3 has no argument for it. Not every store honors it (Ceph 16 ignores If-Match and
    If-None-Match of this request), so the state is compared directly before the request, too.
    """
    if expected is None:
        yield
        return
    bucket, key = split(uri)

    def add_condition(params: dict[str, Any], **_: object) -> None:
        if (params["Bucket"], params["Key"]) == (bucket, key):
            if state(uri) != expected:
                raise FileChangedError(errno.ESTALE, REPLACED, uri)
            params |= condition

    event = "provide-client-params.s3.CompleteMultipartUpload"
    client().meta.events.register(event, add_condition)
    try:
        yield
    finally:
        client().meta.events.unregister(event, add_condition)


def _has_sha256(bucket: str, key: str, sha256: str) -> bool:
    with contextlib.suppress(exceptions.ClientError):
        metadata = client().head_object(Bucket=bucket, Key=key)["Metadata"]
        return bool(metadata.get(SHA256) == sha256)
    return False
