"""The S3 client of a process, and its errors as one line that names the file and holds no secret.

Credentials, endpoint and region come from the environment, a profile or the machine's role, never
from a flag or a URI, which other users of a machine can read.
"""

import contextlib
import errno
import functools
import ipaddress
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from carvana_ray.errors import (
    FileChangedError,
    FileMissingError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage.base import CHANGED, NOT_S3

TRIES = 8  # of a request; with botocore's pauses half a minute on average, 71 s at most
CONNECT_S, READ_S = 5, 30  # timeouts
CONNECTIONS = 32  # kept open; at least one per thread

_LOCK = threading.Lock()
_MISSING = {"NoSuchKey", "404", "NotFound"}
ERROR_HINTS = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "the credentials do not permit this",
    "403": "the credentials do not permit this",
    "InvalidAccessKeyId": "the store does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidToken": "the session token is not valid",
    "400": "the credentials have expired, or the region is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
}
_ACCESS_ERRORS = (  # botocore's errors that the user can fix
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.SSOTokenLoadError,
    exceptions.ParamValidationError,
    exceptions.InvalidConfigError,
    exceptions.ConfigParseError,
)


def client() -> Any:
    """Return the client that all threads of this process share.

    It is not passed to other processes, since a pickled client would carry the secret.

    Raises:
        InputError: the endpoint uses plain http outside this machine.
    """
    with _LOCK:
        return _make_client()


@functools.cache
def _make_client() -> Any:
    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": TRIES},
        "connect_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "max_pool_connections": CONNECTIONS,
        "user_agent_extra": "carvana_ray",
    }
    core = botocore.session.get_session()
    # Parsing timestamps, which nothing here uses, takes half the time of a listing.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    session = boto3.session.Session(botocore_session=core)
    aws_client = session.client("s3", config=Config(**options))
    endpoint = urlsplit(aws_client.meta.endpoint_url)
    host = endpoint.hostname or ""
    if re.search(r"\.amazonaws\.com(\.cn)?$", host):
        return aws_client
    if endpoint.scheme != "https" and not _is_loopback(host):
        raise InputError(
            f"AWS_ENDPOINT_URL {endpoint.scheme}://{host}: plain http is not encrypted; use https"
        )
    # Other stores support neither the newer checksums nor a host name per bucket.
    options["s3"] = {"addressing_style": "path"}
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        options[name] = os.environ.get(f"AWS_{name.upper()}", "when_required").lower()
    return session.client("s3", config=Config(**options))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn boto3's errors into `FileMissingError` or a kind of `StorageUnavailableError`."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _translate(error, uri) from error
    except _ACCESS_ERRORS as error:
        raise StorageAccessError(errno.EACCES, one_line(str(error)), uri) from error
    except (ResponseParserError, RecursionError) as error:  # a page; all requests are redirected
        raise StorageUnavailableError(errno.EIO, NOT_S3, uri) from error
    except exceptions.BotoCoreError as error:
        raise StorageUnavailableError(errno.EIO, one_line(str(error)), uri) from error


def _translate(error: exceptions.ClientError, uri: str) -> Exception:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return FileMissingError(f"{uri}: no such file")
    if code in ERROR_HINTS or status in (401, 403):
        hint = ERROR_HINTS.get(code, ERROR_HINTS["403"])
        return StorageAccessError(errno.EACCES, f"{code}: {hint}", uri)
    if code == "PreconditionFailed":
        return FileChangedError(errno.ESTALE, CHANGED, uri)
    message = error.response.get("Error", {}).get("Message", "")
    return StorageUnavailableError(errno.EIO, one_line(f"{status} {code}: {message}"), uri)


def error_code(error: exceptions.ClientError) -> str:
    """Return the error code of S3, such as ``NoSuchKey``; "" if the response has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def one_line(text: str) -> str:
    """Return text without line breaks, at most 300 characters."""
    return " ".join(text.split())[:300]
