"""Fixtures of the tests of S3."""

from collections.abc import Callable

import pytest
from support.s3_buckets import part_bytes
from support.s3_servers import Server

__all__ = ["part_bytes"]  # a fixture


@pytest.fixture
def home(server: Server, bucket: Callable[[Server], str]) -> str:
    """The URI of an empty bucket, on each of the servers."""
    return bucket(server)
