"""The interface of a file store. `router` documents the functions."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

S3_SCHEME = "s3://"
TEMP_PREFIX = ".draft-"  # prefix of the names of files that are still being written

NOT_S3 = "the answer is not that of an S3 store"  # but the page of a proxy, perhaps
# Causes of a `FileChangedError` of a read and of a write.
CHANGED = "it changed since it was listed"
REPLACED = "another process has replaced it meanwhile"


@dataclass(frozen=True, order=True, slots=True)  # slots: a catalog may list a million files
class FileInfo:
    """One file of a listing. The name has no folder; the size is in bytes."""

    name: str
    size: int
    version: str  # changes with the contents: on disk the modification time in ns, in S3 the ETag


@dataclass(frozen=True)
class FolderContent:
    """What a folder holds, each by name: hidden files and folders too."""

    files: list[FileInfo]
    folders: list[str]
    linked_folders: list[str]  # links to folders, which may lead back; S3 has none


class Store(Protocol):
    """The functions of the modules `local_disk` and `s3`.

    A write publishes whatever the state of the file is if `expected` is None, only a new file if
    it is "", else only over the file with that state.
    """

    def resolve(self, uri: str) -> str: ...
    def exists(self, uri: str) -> bool: ...
    def list_files(
        self, uri: str, suffixes: tuple[str, ...], limit: int | None
    ) -> list[FileInfo]: ...
    def list_dirs(self, uri: str) -> list[str]: ...
    def list_all(self, uri: str) -> FolderContent: ...
    def read(self, uri: str, at_most: int | None, expected: FileInfo | None) -> bytes: ...
    def open_read(self, uri: str) -> BinaryIO: ...
    def state(self, uri: str) -> str: ...
    def write_atomic(self, uri: str, data: bytes, expected: str | None) -> bool: ...
    def atomic_writer(self, uri: str, expected: str | None) -> AbstractContextManager[BinaryIO]: ...
    def remove(self, uri: str) -> None: ...
    def remove_dir(self, uri: str) -> None: ...
    def require_writable(self, uri: str) -> None: ...
    def free_space(self, uri: str) -> int | None: ...
