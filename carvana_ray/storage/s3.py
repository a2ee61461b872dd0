"""Files in S3 or a compatible store. `router` documents the functions.

Retries are bounded and do not multiply. botocore repeats a request without an answer, or answered
by 5xx; `s3_read` repeats a read whose body is short, late or corrupted, `s3_write` a rejected
write.
"""

import errno
import logging
import re
import uuid
from collections.abc import Iterator
from typing import Any

from carvana_ray.errors import InputError, StorageAccessError, StorageUnavailableError
from carvana_ray.storage.base import NOT_S3, S3_SCHEME, TEMP_PREFIX, FileInfo, FolderContent
from carvana_ray.storage.s3_client import client, translate_errors
from carvana_ray.storage.s3_read import etag, split
from carvana_ray.storage.s3_read import open_read as open_read  # a function of this store, as below
from carvana_ray.storage.s3_read import read as read
from carvana_ray.storage.s3_read import state as state
from carvana_ray.storage.s3_write import atomic_writer as atomic_writer
from carvana_ray.storage.s3_write import ignores_conditions
from carvana_ray.storage.s3_write import write_atomic as write_atomic

log = logging.getLogger(__name__)

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BAD_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\]")


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
    _, key = split(uri)
    first = _first_object(uri, key).get("Key", "")
    return first == key or first.startswith(f"{key}/") or bool(_first_object(uri, _prefix(uri)))


def list_files(uri: str, suffixes: tuple[str, ...], limit: int | None) -> list[FileInfo]:
    prefix, files, keys = _prefix(uri), [], 0
    for page in _pages(uri, prefix, Delimiter="/"):
        keys += len(page.get("Contents", [])) + len(page.get("CommonPrefixes", []))
        for item in page.get("Contents", []):
            name = item["Key"][len(prefix) :]
            if name and not name.startswith(".") and name.lower().endswith(suffixes):
                files.append(FileInfo(name, item["Size"], etag(uri, item)))
        if limit is not None and len(files) >= limit:
            break
    if not keys:
        raise InputError(f"{uri}: no such folder")
    return sorted(files)[:limit]


def list_all(uri: str) -> FolderContent:
    prefix, files, folders, keys = _prefix(uri), list[FileInfo](), list[str](), 0
    for page in _pages(uri, prefix, Delimiter="/"):
        keys += len(page.get("Contents", [])) + len(page.get("CommonPrefixes", []))
        for item in page.get("Contents", []):
            if name := item["Key"][len(prefix) :]:  # else the key that stands for the folder
                files.append(FileInfo(name, item["Size"], etag(uri, item)))
        folders += [item["Prefix"][len(prefix) : -1] for item in page.get("CommonPrefixes", [])]
    if not keys:
        raise InputError(f"{uri}: no such folder")
    return FolderContent(sorted(files), sorted(folders), [])


def list_dirs(uri: str) -> list[str]:
    prefix = _prefix(uri)
    return sorted(
        item["Prefix"][len(prefix) : -1]
        for page in _pages(uri, prefix, Delimiter="/")
        for item in page.get("CommonPrefixes", [])
    )


def _prefix(uri: str) -> str:
    """Return the prefix of the keys of all files in a folder."""
    _, key = split(uri)
    return f"{key}/" if key else ""


def _pages(uri: str, prefix: str, **options: str | int) -> Iterator[dict[str, Any]]:
    """Yield the responses of a listing, up to 1,000 keys each."""
    bucket, _ = split(uri)
    with translate_errors(uri):
        pages = client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, **options):
            if not {"Name", "IsTruncated"} & set(page):
                raise StorageUnavailableError(errno.EIO, NOT_S3, uri)
            yield page
            if page.get("IsTruncated") and not page.get("NextContinuationToken"):
                raise StorageUnavailableError(errno.EIO, "the listing is incomplete", uri)


def _first_object(uri: str, prefix: str) -> dict[str, Any]:
    """Return the first object whose key starts with a prefix; {} if there is none."""
    page = next(_pages(uri, prefix, MaxKeys=1))
    return next(iter(page.get("Contents", [])), {})


def remove(uri: str) -> None:
    bucket, key = split(uri)
    with translate_errors(uri):
        client().delete_object(Bucket=bucket, Key=key)


def remove_dir(uri: str) -> None:
    bucket, _ = split(uri)
    for page in list(_pages(uri, _prefix(uri))):  # not every store can delete several at once
        for item in page.get("Contents", []):
            remove(f"{S3_SCHEME}{bucket}/{item['Key']}")


def require_writable(uri: str) -> None:
    probe = f"{uri}/{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        write_atomic(probe, b"1", "")
        if not write_atomic(probe, b"2", state(probe)):
            raise InputError(f"--out {uri}: this store refuses to replace a file (If-Match)")
        write_atomic(probe, b"3", None)
        if ignores_conditions(probe):
            log.warning(
                "%s: this store ignores If-None-Match or If-Match; never run two jobs with the "
                "same --out at the same time",
                uri,
            )
        remove(probe)
    except StorageAccessError as error:
        raise InputError(f"--out {uri}: cannot be written: {error.strerror}") from error


def free_space(uri: str) -> None:
    """Return None: a bucket has no size limit."""
