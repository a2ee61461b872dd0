"""Files in S3, or in what speaks like it. What the functions promise is said in `storage`.

Retries are bounded and in two layers that do not multiply: botocore tries a request again that was
not answered, or answered by 5xx; here one is sent again whose body came short, late or changed.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar, cast

from botocore import exceptions

from carvana_ray.errors import (
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import S3_SCHEME, TEMP_PREFIX, FileInfo
from carvana_ray.storage.s3_client import ERROR_HINTS, client, code_of, one_line, translate_errors

T = TypeVar("T")
log = logging.getLogger(__name__)

BODY_TRIES = 4  # of an answer that came short, late or changed
PART_BYTES = 16 * 2**20  # of a file written in parts; S3 takes 10,000 parts
PARTS_AT_A_TIME = 4

_SHA256 = "carvana-ray-sha256"  # the metadata that hold it, of what is written here

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
# What was sent is not what came in; or others write the same file at this moment.
_SEND_AGAIN = {"BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict"}
_BROKEN_BODY = (
    exceptions.ReadTimeoutError,
    exceptions.ResponseStreamingError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
    exceptions.ConnectionClosedError,
)


def resolve(uri: str) -> str:
    """Return the URI without a slash at its end."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).rstrip("/").partition("/")
    if "@" in bucket or "?" in uri:
        raise InputError(
            "s3://...: only s3://bucket/key; keys come from the environment, a profile or the "
            "machine's role, an endpoint from AWS_ENDPOINT_URL"
        )
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{uri!r}: {bucket!r} is no name of a bucket (s3://bucket/key)")
    parts = key.split("/") if key else []
    if _ODD.search(key) or {"", ".", ".."}.intersection(parts):
        raise InputError(f"{uri!r}: its key has an empty part, or . or .., or odd characters")
    return f"{S3_SCHEME}{bucket}/{key}".rstrip("/")


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    return bucket, key


def _pages(uri: str, prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Yield the answers of a listing, of up to 1,000 keys each."""
    bucket, _ = _split(uri)
    with translate_errors(uri):
        pages = client().get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=bucket, Prefix=prefix, **more)


def _prefix(uri: str) -> str:
    """Return what the keys of all files of a folder begin with."""
    _, key = _split(uri)
    return f"{key}/" if key else ""


def _first(uri: str, prefix: str) -> dict[str, Any]:
    """Return the first key that begins so, {} if there is none.

    A listing, not a HEAD: that is answered by a bare number where something is wrong.
    """
    bucket, _ = _split(uri)
    with translate_errors(uri):
        found = client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    return next(iter(found.get("Contents", [])), {})


def exists(uri: str) -> bool:
    """Return whether there is a file, or files below."""
    _, key = _split(uri)
    found = _first(uri, key).get("Key", "")
    return found == key or found.startswith(f"{key}/") or bool(_first(uri, _prefix(uri)))


def size(uri: str) -> int | None:
    """Return the bytes of a file, None if it is not there."""
    _, key = _split(uri)
    found = _first(uri, key)
    return int(found["Size"]) if found.get("Key") == key else None


def list_files(uri: str, suffixes: Sequence[str]) -> list[FileInfo]:
    """Return the files of a folder, by name: a request for each 1,000 keys."""
    wanted, prefix, found, empty = tuple(suffixes), _prefix(uri), [], True
    for page in _pages(uri, prefix, Delimiter="/"):
        empty = empty and not page.get("KeyCount")
        for one in page.get("Contents", []):
            name = one["Key"][len(prefix) :]
            if name and not name.startswith(".") and name.lower().endswith(wanted):
                found.append(FileInfo(name, one["Size"], one["ETag"].strip('"')))
    if empty:
        raise InputError(f"{uri}: no such folder")
    return sorted(found)


def list_dirs(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in order."""
    prefix = _prefix(uri)
    return sorted(
        one["Prefix"][len(prefix) : -1]
        for page in _pages(uri, prefix, Delimiter="/")
        for one in page.get("CommonPrefixes", [])
    )


def read(uri: str, at_most: int | None) -> bytes:
    """Return the contents of a file, as its ETag or its checksum says that they were written."""
    buffer = io.BytesIO()
    _fetch(uri, buffer, at_most)
    return buffer.getvalue()


def open_read(uri: str) -> BinaryIO:
    """Fetch a file to this machine's disk, and open it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    _fetch(uri, file, None)
    file.seek(0)
    return file


def _fetch(uri: str, into: BinaryIO, at_most: int | None) -> None:
    bucket, key = _split(uri)
    for pause in range(BODY_TRIES):
        time.sleep(pause * 0.2)
        into.seek(0)
        into.truncate()
        with translate_errors(uri):
            answer = client().get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        length = answer["ContentLength"]
        if at_most is not None and length > at_most:
            answer["Body"].close()
            raise FileTooLargeError(f"{uri}: {length} bytes, at most {at_most}")
        algorithm, written = _digest_of(answer)
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            for piece in answer["Body"].iter_chunks(2**20):
                digest.update(piece)
                into.write(piece)
        except _BROKEN_BODY as error:
            problem = one_line(str(error))
            continue
        if into.tell() == length and written in ("", digest.hexdigest()):
            return
        problem = "what was received is not what was written"
    raise StorageUnavailableError(errno.EIO, f"{problem}, {BODY_TRIES} times", uri)


def _digest_of(answer: dict[str, Any]) -> tuple[str, str]:
    """Return name and value of the digest that an object was written with, "" if none is known.

    The ETag is the MD5, unless it was written in parts, or encrypted with keys of its own.
    """
    if sha256 := answer.get("Metadata", {}).get(_SHA256, ""):
        return "sha256", sha256
    etag = answer["ETag"].strip('"').lower()
    encrypted = answer.get("ServerSideEncryption", "AES256") != "AES256"
    if encrypted or "SSECustomerAlgorithm" in answer or not re.fullmatch("[0-9a-f]{32}", etag):
        etag = ""
    return "md5", etag


def write_atomic(uri: str, data: bytes, replace: bool) -> bool:
    """Write a file by one PUT; return whether it now holds these bytes."""
    bucket, key = _split(uri)
    put = functools.partial(
        client().put_object,
        Bucket=bucket,
        Key=key,
        Body=data,
        ContentMD5=_content_md5(data),
        Metadata={_SHA256: hashlib.sha256(data).hexdigest()},
    )
    try:
        with translate_errors(uri):
            try:
                _send(put) if replace else _send(put, IfNoneMatch="*")
                return True
            except exceptions.ClientError as error:
                if code_of(error) == "PreconditionFailed":
                    # Somebody was first; or we were, and the answer was lost.
                    return read(uri, None) == data
                if code_of(error) != "NotImplemented" or replace:
                    raise
                _send(put)
                return True
    except FileMissingError as error:  # a PUT that finds nothing
        raise StorageAccessError(errno.ENOENT, ERROR_HINTS["NoSuchBucket"], uri) from error


def _send(call: Callable[..., T], **more: Any) -> T:
    """Make a call that writes, again where that has a chance."""
    for pause in range(1, BODY_TRIES):
        try:
            return call(**more)
        except exceptions.ClientError as error:
            if code_of(error) not in _SEND_AGAIN:
                raise
        time.sleep(pause * 0.2)
    return call(**more)


def _content_md5(data: bytes) -> str:
    """Return the header by which the store refuses what has changed on its way."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@contextlib.contextmanager
def atomic_writer(uri: str) -> Iterator[BinaryIO]:
    """Give a file on this machine's disk; upload it when the block ends."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.flush()
        length = file.seek(0, os.SEEK_END)
        if length <= PART_BYTES:
            file.seek(0)
            write_atomic(uri, file.read(), True)
        else:
            with translate_errors(uri):
                _upload_parts(uri, file, length)


def _upload_parts(uri: str, file: BinaryIO, length: int) -> None:
    """Upload a large file in parts; it is there when the last request has been answered.

    boto3's own `upload_fileobj` has no way to send the MD5 of each part.
    """
    bucket, key = _split(uri)
    where = {"Bucket": bucket, "Key": key}
    file.seek(0)
    told = {_SHA256: hashlib.file_digest(cast(Any, file), "sha256").hexdigest()}
    where["UploadId"] = client().create_multipart_upload(**where, Metadata=told)["UploadId"]
    parts: list[dict[str, Any]] = []
    each = max(PART_BYTES, -(-length // 10_000))

    def send(number: int) -> dict[str, Any]:
        data = os.pread(file.fileno(), each, (number - 1) * each)
        put = functools.partial(client().upload_part, **where, PartNumber=number, Body=data)
        sent = _send(put, ContentMD5=_content_md5(data))
        return {"PartNumber": number, "ETag": sent["ETag"]}

    try:
        with ThreadPoolExecutor(PARTS_AT_A_TIME) as pool:
            parts += list(pool.map(send, range(1, -(-length // each) + 1)))
        client().complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    except BaseException as error:
        if isinstance(error, exceptions.ClientError) and code_of(error) == "NoSuchUpload" and parts:
            md5s = b"".join(bytes.fromhex(one["ETag"].strip('"')) for one in parts)
            whole = f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{len(parts)}"
            if _first(uri, key).get("ETag", "").strip('"') == whole:
                return  # the answer was lost, and the request sent again
        with contextlib.suppress(exceptions.ClientError, exceptions.BotoCoreError):
            client().abort_multipart_upload(**where)
        raise


def remove(uri: str) -> None:
    """Remove a file, if it is there."""
    bucket, key = _split(uri)
    with translate_errors(uri):
        client().delete_object(Bucket=bucket, Key=key)


def remove_dir(uri: str) -> None:
    """Remove all files below, one by one: not every store knows how to remove many at once."""
    for page in list(_pages(uri, _prefix(uri))):
        for one in page.get("Contents", []):
            remove(f"{S3_SCHEME}{_split(uri)[0]}/{one['Key']}")


def require_writable(uri: str) -> None:
    """Raise `InputError` if objects cannot be written below a prefix."""
    probe = f"{uri}/{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        write_atomic(probe, b"1", False)
        if write_atomic(probe, b"2", False):
            log.warning(
                "%s: this store does not keep a file that is there (If-None-Match): let no two "
                "jobs write there at the same time",
                uri,
            )
        remove(probe)
    except StorageAccessError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> int | None:
    """Return None: a bucket has no end."""
    del uri
    return None


def remove_stale_temps(uri: str) -> None:
    """Do nothing: what is not whole is not there. Parts of uploads that were cut off are taken away
    by a rule of the bucket's life cycle (docs/cluster.md)."""
