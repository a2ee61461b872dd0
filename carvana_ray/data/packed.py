"""Data that are still packed in archives, or that Windows has unpacked one folder too deep."""

import contextlib
import shlex
from collections.abc import Iterator

from carvana_ray import storage
from carvana_ray.errors import InputError, StorageUnavailableError

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
ZIP = ".zip"


def inner_folder(folder: str, suffixes: tuple[str, ...]) -> str:
    """Return ``test/test`` if ``test`` has a folder of its own name and no files of its own.

    That is how Windows unpacks an archive ``test.zip``, which holds the folder ``test``.

    Args:
        folder: URI of a folder, which may be missing.
        suffixes: of the files that count.
    """
    inner = storage.join(folder, storage.name(folder))
    if storage.exists(inner) and not storage.list_files(folder, suffixes, 1):
        return inner
    return folder


def is_archive(uri: str) -> bool:
    """Return whether a URI names an archive that exists, and no folder."""
    if not uri.lower().endswith(ARCHIVES) or not storage.exists(uri):
        return False
    return any(
        file.name == storage.name(uri)
        for file in storage.list_files(storage.parent(uri), (storage.name(uri).lower(),))
    )


def require_unpacked(uri: str) -> None:
    """Raise `InputError` with the command that unpacks it, if a URI names an archive."""
    if is_archive(uri):
        into = uri[: uri.lower().rindex(next(s for s in ARCHIVES if uri.lower().endswith(s)))]
        raise InputError(f"--data: {_advice(uri, into)}, and name {into}")


@contextlib.contextmanager
def advised(folder: str) -> Iterator[None]:
    """Add what to unpack to an `InputError` that the with-block raises about a folder."""
    try:
        yield
    except StorageUnavailableError:
        raise
    except InputError as error:
        if not (advice := _advice_for(folder)):
            raise
        said = str(error).removeprefix("--data: ")
        raise InputError(f"--data: {said}{advice}") from error


def _advice_for(folder: str) -> str:
    """Return what to unpack if a folder that a job needs is missing or has no images; or ""."""
    archive = f"{folder.rstrip('/')}{ZIP}"
    if storage.exists(archive):
        return f"; {_advice(archive, storage.parent(folder))}"
    if not storage.exists(folder):
        return ""
    packed = storage.list_files(folder, ARCHIVES, 1)
    return f"; {_advice(storage.join(folder, packed[0].name), folder)}" if packed else ""


def advice_for_file(uri: str) -> str:
    """Return what to unpack if a file is missing that Kaggle packs alone; or ""."""
    packed = f"{uri}{ZIP}"
    return _advice(packed, storage.parent(uri)) if storage.exists(packed) else ""


def _advice(archive: str, into: str) -> str:
    if storage.is_remote(archive):
        return f"{archive} is still packed; unpack it and upload the files to {into}"
    quoted, folder = shlex.quote(archive), shlex.quote(into)
    tool = f"unzip {quoted} -d {folder}"
    if not archive.lower().endswith(ZIP):
        tool = f"mkdir -p {folder} && tar -xf {quoted} -C {folder}"
        if archive.lower().endswith((".7z", ".rar")):
            tool = f"7z x {quoted} -o{folder}"
    return f"{archive} is still packed; unpack it: {tool}"
