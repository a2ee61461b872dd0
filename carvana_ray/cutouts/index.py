"""What a folder of cut-outs holds: how they were made, and of which pictures.

    cutouts/_cutouts.json     settings, and folder, name, size and version of each picture
    cutouts/red_roadster.png  of red_roadster.jpg

A cut-out is done when its file is there: files are published whole, and one whose picture has
changed is removed before the ledger says so.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.storage.router import FileInfo

FORMAT = 1
FILE = "_cutouts.json"


@dataclass(frozen=True)
class SourceImage:
    """A picture.

    Attributes:
        folder: where it is.
        entry: its name there, with size and version.
    """

    folder: str
    entry: FileInfo

    @property
    def uri(self) -> str:
        """Its place."""
        return storage.join(self.folder, self.entry.name)


@dataclass(frozen=True)
class CutoutIndex:
    """Settings by the name of their flag, and the picture of each cut-out."""

    settings: dict[str, Any]
    sources: dict[str, SourceImage]

    def to_bytes(self) -> bytes:
        """Return the bytes of its file."""
        folders: dict[str, list[list[Any]]] = {}
        for name, source in sorted(self.sources.items()):
            row = [name, source.entry.name, source.entry.size, source.entry.version]
            folders.setdefault(source.folder, []).append(row)
        body = {"format": FORMAT, "settings": self.settings, "pictures": folders}
        return json.dumps(body).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "CutoutIndex":
        """Return the ledger of a file that `to_bytes` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is none, or damaged.
        """
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']}, this version writes format {FORMAT}")
        sources = {
            name: SourceImage(folder, FileInfo(picture, size, version))
            for folder, rows in body["pictures"].items()
            for name, picture, size, version in rows
        }
        return cls(dict(body["settings"]), sources)


def cutout_name(picture: str, suffix: str) -> str:
    """Return the cut-out's file name: the picture's own, without folder, with another suffix."""
    return storage.name(picture).rsplit(".", 1)[0] + suffix


def by_output_name(sources: Iterable[SourceImage], suffix: str) -> dict[str, SourceImage]:
    """Return the pictures by the name of their cut-outs.

    Raises:
        InputError: two would have the same.
    """
    found: dict[str, SourceImage] = {}
    for source in sources:
        name = cutout_name(source.entry.name, suffix)
        if name in found:
            raise InputError(
                f"{found[name].uri} and {source.uri}: both would become {name}; rename one, or cut "
                "them out with another --out"
            )
        found[name] = source
    return found


def sync(
    folder: str, settings: Mapping[str, Any], wanted: Mapping[str, SourceImage], suffix: str
) -> list[str]:
    """Enter pictures into the ledger of a folder; return the names of the cut-outs to make.

    Args:
        folder: of the cut-outs.
        settings: that they are to be made with, plain values.
        wanted: pictures by the name of their cut-outs.
        suffix: of all cut-outs.

    Raises:
        InputError: the folder has cut-outs made otherwise, or of other pictures of the same name;
            or files that nobody knows.
    """
    there = set()
    if storage.exists(folder):
        there = {entry.name for entry in storage.list_files(folder, (suffix,))}
    old = _read(folder, settings)
    if old is None:
        old = CutoutIndex(dict(settings), {})
    if strange := sorted((there & set(wanted)) - set(old.sources)):
        raise InputError(
            f"{storage.join(folder, strange[0])}: is there, but no {FILE} says how it was made; "
            "use another --out, or remove that folder"
        )
    stale = {name for name, source in wanted.items() if old.sources.get(name, source) != source}
    for name in sorted(stale):
        if old.sources[name].uri != wanted[name].uri:
            raise InputError(
                f"{storage.join(folder, name)}: is of {old.sources[name].uri}, and "
                f"{wanted[name].uri} would become the same; use another --out"
            )
    for name in sorted(stale & there):
        storage.remove(storage.join(folder, name))
    new = CutoutIndex(dict(settings), {**old.sources, **wanted})
    if new != old or not storage.exists(storage.join(folder, FILE)):
        storage.write_atomic(storage.join(folder, FILE), new.to_bytes(), replace=True)
    return [name for name in wanted if name in stale or name not in there]


def _read(folder: str, settings: Mapping[str, Any]) -> CutoutIndex | None:
    """Return the ledger of a folder, None if there is none.

    Raises:
        InputError: it is damaged, or of other settings.
    """
    uri = storage.join(folder, FILE)
    if not storage.exists(uri):
        return None
    data = storage.read(uri)
    try:
        ledger = CutoutIndex.from_bytes(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{uri}: damaged ({error}); use another --out, or remove that folder"
        ) from error
    names = [*settings, *(name for name in ledger.settings if name not in settings)]
    other = [
        f"{name}: {ledger.settings.get(name)} there, {settings.get(name)} now"
        for name in names
        if ledger.settings.get(name) != settings.get(name)
    ]
    if other:
        raise InputError(
            f"{folder}: has cut-outs made with other settings ({'; '.join(other)}); use another "
            "--out, or remove that folder"
        )
    return ledger
