"""The client of S3 of a process, and its errors in words: one line that names the file, no secret.

Keys, endpoint and region come from where all AWS programs take them (environment, profile, role of
the machine), never from a flag or a URI, which other users of a machine can read. Each process
makes its own client: one that travelled would carry the secret with it.
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

from carvana_ray.errors import (
    FileMissingError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)

TRIES = 8  # of a request; with botocore's pauses half a minute on average, 71 s at most
CONNECT_S, READ_S = 5, 30
CONNECTIONS = 32  # that are kept open; more threads than that would open new ones

_MAKING = threading.Lock()
_MISSING = {"NoSuchKey", "404", "NotFound"}
ERROR_HINTS = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "the credentials in use have no right to this",
    "403": "the credentials in use have no right to this",
    "InvalidAccessKeyId": "the access key in use is unknown there",
    "SignatureDoesNotMatch": "the secret in use is wrong",
    "ExpiredToken": "the credentials in use have expired; get new ones",
    "InvalidToken": "the session token in use is not valid",
    "400": "the credentials in use have expired, or the region is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
}
_CREDENTIALS = (  # botocore's errors that a user can mend
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
    """Return this process's client; safe to use by several threads.

    Raises:
        InputError: the endpoint would send pictures in clear over a network.
    """
    with _MAKING:
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
    # Times of change are of no use here, and to parse them takes half the time of a listing.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    session = boto3.session.Session(botocore_session=core)
    made = session.client("s3", config=Config(**options))
    endpoint = urlsplit(made.meta.endpoint_url)
    host = endpoint.hostname or ""
    if re.search(r"\.amazonaws\.com(\.cn)?$", host):
        return made
    if endpoint.scheme != "https" and not _loopback(host):
        raise InputError(f"AWS_ENDPOINT_URL {endpoint.scheme}://{host}: plain http; use https")
    # Other stores know neither the newer checksums, nor a host name for each bucket.
    options["s3"] = {"addressing_style": "path"}
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        options[name] = os.environ.get(f"AWS_{name.upper()}", "when_required").lower()
    return session.client("s3", config=Config(**options))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn what boto3 raises into an error that names the file and the cause, and no secret."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _named(error, uri) from error
    except _CREDENTIALS as error:
        raise StorageAccessError(errno.EACCES, one_line(str(error)), uri) from error
    except exceptions.BotoCoreError as error:
        raise StorageUnavailableError(errno.EIO, one_line(str(error)), uri) from error


def _named(error: exceptions.ClientError, uri: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return FileMissingError(f"{uri}: no such file")
    if code in ERROR_HINTS or status in (401, 403):
        return StorageAccessError(
            errno.EACCES, f"{code}: {ERROR_HINTS.get(code, ERROR_HINTS['403'])}", uri
        )
    said = error.response.get("Error", {}).get("Message", "")
    return StorageUnavailableError(errno.EIO, one_line(f"{status} {code}: {said}"), uri)


def one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def code_of(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
