"""The index of a folder of cut-outs: their settings and source images.

    cutouts/_cutouts.json     settings, and folder, name, size and version of each source image
    cutouts/red_roadster.png  cut out of red_roadster.jpg

A cut-out is done when its file exists: files are written atomically, and the cut-out of a changed
image is removed before the index is updated.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.storage import FileInfo

FORMAT = 1
FILE = "_cutouts.json"


@dataclass(frozen=True)
class SourceImage:
    """An image to cut out: the URI of its folder, and its entry in that folder."""

    folder: str
    entry: FileInfo

    @property
    def uri(self) -> str:
        return storage.join(self.folder, self.entry.name)


@dataclass(frozen=True)
class CutoutIndex:
    """Content of `FILE`.

    Attributes:
        settings: JSON values that all cut-outs of the folder depend on, by name.
        sources: source image by name of its cut-out.
    """

    settings: dict[str, Any]
    sources: dict[str, SourceImage]

    def to_bytes(self) -> bytes:
        folders: dict[str, list[list[Any]]] = {}
        for name, source in sorted(self.sources.items()):
            row = [name, source.entry.name, source.entry.size, source.entry.version]
            folders.setdefault(source.folder, []).append(row)
        body = {"format": FORMAT, "settings": self.settings, "pictures": folders}
        return json.dumps(body).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "CutoutIndex":
        """Return the index that `to_bytes` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: `data` is not an index.
        """
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']}, this version writes format {FORMAT}")
        sources = {
            name: SourceImage(folder, FileInfo(image, size, version))
            for folder, rows in body["pictures"].items()
            for name, image, size, version in rows
        }
        return cls(dict(body["settings"]), sources)

    def require_settings(self, settings: Mapping[str, Any], folder: str) -> None:
        """Raise `InputError` if the cut-outs of a folder were made with other settings."""
        changed = [
            f"{name}: was {self.settings.get(name)}, is now {settings.get(name)}"
            for name in dict.fromkeys((*settings, *self.settings))
            if self.settings.get(name) != settings.get(name)
        ]
        if changed:
            raise InputError(
                f"{folder}: has cut-outs made with other settings ({'; '.join(changed)}); use "
                "another --out, or remove that folder"
            )


def cutout_name(image: str, suffix: str) -> str:
    """Return the file name of an image's cut-out: the image's name with another suffix."""
    return storage.name(image).rsplit(".", 1)[0] + suffix


def by_output_name(sources: Iterable[SourceImage], suffix: str) -> dict[str, SourceImage]:
    """Return the images by name of their cut-out.

    Raises:
        InputError: two images have the same name but for the suffix.
    """
    named: dict[str, SourceImage] = {}
    for source in sources:
        name = cutout_name(source.entry.name, suffix)
        if name in named:
            raise InputError(
                f"{named[name].uri} and {source.uri}: both would become {name}; rename one, or cut "
                "them out with another --out"
            )
        named[name] = source
    return named


def sync(
    folder: str, settings: Mapping[str, Any], wanted: Mapping[str, SourceImage], suffix: str
) -> list[str]:
    """Add images to the index of a folder, and remove the cut-outs of images that have changed.

    Args:
        folder: URI of the folder of cut-outs.
        settings: see `CutoutIndex`.
        wanted: images by name of their cut-out.
        suffix: file name suffix of all cut-outs.

    Returns:
        Names of the cut-outs that are still to be made, in the order of `wanted`.

    Raises:
        InputError: the index is damaged or has other settings, or the folder has cut-outs of other
            images with the same name, or files that the index does not list.
    """
    index = _read(storage.join(folder, FILE))
    if index:
        index.require_settings(settings, folder)
    old = index.sources if index else {}
    existing = set[str]()
    if storage.exists(folder):
        existing = {entry.name for entry in storage.list_files(folder, (suffix,))}
    stale = {name for name, source in wanted.items() if old.get(name, source) != source}
    if unlisted := sorted((existing & set(wanted)) - set(old)):
        raise InputError(
            f"{storage.join(folder, unlisted[0])}: the file exists, but {FILE} does not list it; "
            "use another --out, or remove that folder"
        )
    for name in sorted(stale):
        if old[name].uri != wanted[name].uri:
            raise InputError(
                f"{storage.join(folder, name)}: the cut-out of {old[name].uri} has the name that "
                f"{wanted[name].uri} needs; use another --out"
            )
    for name in stale & existing:
        storage.remove(storage.join(folder, name))
    new = CutoutIndex(dict(settings), {**old, **wanted})
    if new != index:
        storage.write_atomic(storage.join(folder, FILE), new.to_bytes(), replace=True)
    return [name for name in wanted if name in stale or name not in existing]


def _read(uri: str) -> CutoutIndex | None:
    if not storage.exists(uri):
        return None
    data = storage.read(uri)
    try:
        return CutoutIndex.from_bytes(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{uri}: damaged ({error}); use another --out, or remove that folder"
        ) from error
