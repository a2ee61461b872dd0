"""Files in S3 or a compatible store. `router` documents the functions.

Retries are bounded and do not multiply. botocore repeats a request without an answer, or answered
by 5xx; this module repeats a read whose body is short, late or corrupted, and a rejected write.
"""

import base64
import contextlib
import errno
import functools
import hashlib
import io
import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar, cast

from boto3.s3.transfer import TransferConfig
from botocore import exceptions

from carvana_ray.errors import (
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import S3_SCHEME, TEMP_PREFIX, FileInfo
from carvana_ray.storage.s3_client import (
    ERROR_HINTS,
    client,
    error_code,
    one_line,
    translate_errors,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_TRIES = 4  # of a read with a bad body, and of a rejected write
PART_BYTES = 16 * 2**20  # larger files are uploaded in parts of this size
PARALLEL_PARTS = 4

_SHA256 = "carvana-ray-sha256"  # metadata key: SHA-256 of an object written here

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BAD_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\]")
# The body was corrupted on its way, or another process is writing the same object.
_RETRIED_CODES = {"BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict"}
_BODY_ERRORS = (
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
)


def resolve(uri: str) -> str:
    bucket, _, key = uri.removeprefix(S3_SCHEME).rstrip("/").partition("/")
    if "@" in bucket or "?" in uri:
        raise InputError(
            "s3://...: only s3://bucket/key is allowed; set credentials in the environment or a "
            "profile, and an endpoint in AWS_ENDPOINT_URL"
        )
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{uri!r}: {bucket!r} is not a bucket name (s3://bucket/key)")
    parts = key.split("/") if key else []
    if _BAD_CHARACTERS.search(key) or {"", ".", ".."}.intersection(parts):
        raise InputError(
            f"{uri!r}: the key has an empty part, '.', '..', a backslash or a control character"
        )
    return f"{S3_SCHEME}{bucket}/{key}".rstrip("/")


def exists(uri: str) -> bool:
    _, key = _split(uri)
    first = _first_object(uri, key).get("Key", "")
    return first == key or first.startswith(f"{key}/") or bool(_first_object(uri, _prefix(uri)))


def list_files(uri: str, suffixes: tuple[str, ...]) -> list[FileInfo]:
    prefix, files, keys = _prefix(uri), [], 0
    for page in _pages(uri, prefix, Delimiter="/"):
        keys += page.get("KeyCount", 0)
        for item in page.get("Contents", []):
            name = item["Key"][len(prefix) :]
            if name and not name.startswith(".") and name.lower().endswith(suffixes):
                files.append(FileInfo(name, item["Size"], item["ETag"].strip('"')))
    if not keys:
        raise InputError(f"{uri}: no such folder")
    return sorted(files)


def list_dirs(uri: str) -> list[str]:
    prefix = _prefix(uri)
    return sorted(
        item["Prefix"][len(prefix) : -1]
        for page in _pages(uri, prefix, Delimiter="/")
        for item in page.get("CommonPrefixes", [])
    )


def _split(uri: str) -> tuple[str, str]:
    """Return bucket and key."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    return bucket, key


def _prefix(uri: str) -> str:
    """Return the prefix of the keys of all files in a folder."""
    _, key = _split(uri)
    return f"{key}/" if key else ""


def _pages(uri: str, prefix: str, **options: str | int) -> Iterator[dict[str, Any]]:
    """Yield the responses of a listing, up to 1,000 keys each."""
    bucket, _ = _split(uri)
    with translate_errors(uri):
        pages = client().get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=bucket, Prefix=prefix, **options)


def _first_object(uri: str, prefix: str) -> dict[str, Any]:
    """Return the first object whose key starts with a prefix; {} if there is none."""
    page = next(_pages(uri, prefix, MaxKeys=1))
    return next(iter(page.get("Contents", [])), {})


def read(uri: str, at_most: int | None) -> bytes:
    buffer = io.BytesIO()
    _fetch(uri, buffer, at_most)
    return buffer.getvalue()


def open_read(uri: str) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    _fetch(uri, file, None)
    file.seek(0)
    return file


def _fetch(uri: str, target: BinaryIO, at_most: int | None) -> None:
    """Write the contents of an object to `target`; repeat a read whose body is bad."""
    bucket, key = _split(uri)
    for attempt in range(MAX_TRIES):
        time.sleep(attempt * 0.2)
        target.seek(0)
        target.truncate()
        with translate_errors(uri):
            response = client().get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        length = response["ContentLength"]
        if at_most is not None and length > at_most:
            response["Body"].close()
            raise FileTooLargeError(f"{uri}: {length} bytes, at most {at_most} are allowed")
        algorithm, expected = _expected_digest(response)
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            for chunk in response["Body"].iter_chunks(2**20):
                digest.update(chunk)
                target.write(chunk)
        except _BODY_ERRORS as error:
            problem = one_line(str(error))
            continue
        if target.tell() == length and expected in ("", digest.hexdigest()):
            return
        problem = "the received bytes differ from the written ones"
    raise StorageUnavailableError(errno.EIO, f"{problem}, in all {MAX_TRIES} attempts", uri)


def _expected_digest(response: dict[str, Any]) -> tuple[str, str]:
    """Return the algorithm and the hexadecimal digest of an object; "" if the digest is unknown."""
    if sha256 := response.get("Metadata", {}).get(_SHA256, ""):
        return "sha256", sha256
    # The ETag is the MD5, except of multipart uploads and of objects encrypted with customer keys.
    etag = response["ETag"].strip('"').lower()
    encrypted = response.get("ServerSideEncryption", "AES256") != "AES256"
    if encrypted or "SSECustomerAlgorithm" in response or not re.fullmatch("[0-9a-f]{32}", etag):
        etag = ""
    return "md5", etag


def write_atomic(uri: str, data: bytes, replace: bool) -> bool:
    bucket, key = _split(uri)
    md5 = hashlib.md5(data, usedforsecurity=False).digest()  # the store compares it with the body
    put = functools.partial(
        client().put_object,
        Bucket=bucket,
        Key=key,
        Body=data,
        ContentMD5=base64.b64encode(md5).decode(),
        Metadata={_SHA256: hashlib.sha256(data).hexdigest()},
    )
    try:
        with translate_errors(uri):
            return _put(uri, data, put, replace)
    except FileMissingError as error:  # a PUT answered by 404
        raise StorageAccessError(errno.ENOENT, ERROR_HINTS["NoSuchBucket"], uri) from error


def _put(uri: str, data: bytes, put: Callable[..., Any], replace: bool) -> bool:
    try:
        _send(put) if replace else _send(put, IfNoneMatch="*")
    except exceptions.ClientError as error:
        if error_code(error) == "PreconditionFailed":
            # Another writer was first, or an earlier try succeeded and its answer was lost.
            return read(uri, None) == data
        if error_code(error) != "NotImplemented" or replace:
            raise
        _send(put)  # the store does not support If-None-Match
    return True


def _send(call: Callable[..., T], **options: str) -> T:
    """Make a writing call; repeat it on errors that a repetition can fix."""
    for attempt in range(1, MAX_TRIES):
        try:
            return call(**options)
        except exceptions.ClientError as error:
            if error_code(error) not in _RETRIED_CODES:
                raise
        time.sleep(attempt * 0.2)
    return call(**options)


@contextlib.contextmanager
def atomic_writer(uri: str) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        yield file
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        if length <= PART_BYTES:
            write_atomic(uri, file.read(), True)
        else:
            with translate_errors(uri):
                _upload_parts(uri, file)


def _upload_parts(uri: str, file: BinaryIO) -> None:
    """Upload a large file in parts; the object appears when the last request succeeds.

    boto3 aborts the upload on an error, which removes its parts.
    """
    bucket, key = _split(uri)
    sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    arguments: dict[str, Any] = {"Metadata": {_SHA256: sha256}}
    # Stores that know no checksum headers compare each part with the SHA-256 of its signature.
    if client().meta.config.request_checksum_calculation == "when_supported":
        arguments["ChecksumAlgorithm"] = "SHA256"
    config = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=PARALLEL_PARTS,
        preferred_transfer_client="classic",
    )

    def upload() -> None:
        file.seek(0)
        client().upload_fileobj(file, bucket, key, ExtraArgs=arguments, Config=config)

    try:
        _send(upload)
    except exceptions.ClientError as error:
        # The last request succeeded, its answer was lost, and botocore repeated it.
        if error_code(error) == "NoSuchUpload" and _has_sha256(bucket, key, sha256):
            return
        raise


def _has_sha256(bucket: str, key: str, sha256: str) -> bool:
    with contextlib.suppress(exceptions.ClientError):
        metadata = client().head_object(Bucket=bucket, Key=key)["Metadata"]
        return bool(metadata.get(_SHA256) == sha256)
    return False


def remove(uri: str) -> None:
    bucket, key = _split(uri)
    with translate_errors(uri):
        client().delete_object(Bucket=bucket, Key=key)


def remove_dir(uri: str) -> None:
    bucket, _ = _split(uri)
    for page in list(_pages(uri, _prefix(uri))):  # not every store can delete several at once
        for item in page.get("Contents", []):
            remove(f"{S3_SCHEME}{bucket}/{item['Key']}")


def require_writable(uri: str) -> None:
    probe = f"{uri}/{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        write_atomic(probe, b"1", False)
        if write_atomic(probe, b"2", False):
            log.warning(
                "%s: this store replaces existing files in spite of If-None-Match; never run two "
                "jobs with the same --out at the same time",
                uri,
            )
        remove(probe)
    except StorageAccessError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> None:
    """Return None: a bucket has no size limit."""


def remove_stale_temps(uri: str) -> None:
    """Do nothing: a lifecycle rule removes the parts of interrupted uploads (docs/cluster.md)."""
