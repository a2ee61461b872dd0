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
    """An image to cut out.

    Attributes:
        folder: URI of the image's folder.
        entry: name in that folder, size and version.
    """

    folder: str
    entry: FileInfo

    @property
    def uri(self) -> str:
        """The URI of the image."""
        return storage.join(self.folder, self.entry.name)


@dataclass(frozen=True)
class CutoutIndex:
    """Content of `FILE`.

    Attributes:
        settings: plain values by setting, equal for all cut-outs of a folder.
        sources: source image by name of its cut-out.
    """

    settings: dict[str, Any]
    sources: dict[str, SourceImage]

    def to_bytes(self) -> bytes:
        """Return the index as JSON."""
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
            ValueError, KeyError, TypeError, AttributeError: `data` is damaged or no index.
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
        settings: plain values that the cut-outs depend on.
        wanted: images by name of their cut-out.
        suffix: file name suffix of all cut-outs.

    Returns:
        Names of the cut-outs that are still to be made, in the order of `wanted`.

    Raises:
        InputError: the folder has cut-outs made with other settings, cut-outs of other images with
            the same name, or files that the index does not list.
    """
    existing = set()
    if storage.exists(folder):
        existing = {entry.name for entry in storage.list_files(folder, (suffix,))}
    index = _read(folder, settings)
    old = index or CutoutIndex(dict(settings), {})
    stale = {name for name, source in wanted.items() if old.sources.get(name, source) != source}
    _require_own_files(folder, old, wanted, existing, stale)
    for name in sorted(stale & existing):
        storage.remove(storage.join(folder, name))
    new = CutoutIndex(dict(settings), {**old.sources, **wanted})
    if new != index:
        storage.write_atomic(storage.join(folder, FILE), new.to_bytes(), replace=True)
    return [name for name in wanted if name in stale or name not in existing]


def _require_own_files(
    folder: str,
    index: CutoutIndex,
    wanted: Mapping[str, SourceImage],
    existing: set[str],
    stale: set[str],
) -> None:
    """Raise `InputError` if a wanted name exists unlisted or belongs to another image's URI."""
    if unlisted := sorted((existing & set(wanted)) - set(index.sources)):
        raise InputError(
            f"{storage.join(folder, unlisted[0])}: the file exists, but {FILE} does not list it; "
            "use another --out, or remove that folder"
        )
    for name in sorted(stale):
        if index.sources[name].uri != wanted[name].uri:
            raise InputError(
                f"{storage.join(folder, name)}: the cut-out of {index.sources[name].uri} has the "
                f"name that {wanted[name].uri} needs; use another --out"
            )


def _read(folder: str, settings: Mapping[str, Any]) -> CutoutIndex | None:
    """Return the index of a folder, or None if the folder has no index.

    Raises:
        InputError: the index is damaged or has other settings.
    """
    uri = storage.join(folder, FILE)
    if not storage.exists(uri):
        return None
    data = storage.read(uri)
    try:
        index = CutoutIndex.from_bytes(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{uri}: damaged ({error}); use another --out, or remove that folder"
        ) from error
    changed = [
        f"{name}: was {index.settings.get(name)}, is now {settings.get(name)}"
        for name in dict.fromkeys((*settings, *index.settings))
        if index.settings.get(name) != settings.get(name)
    ]
    if changed:
        raise InputError(
            f"{folder}: has cut-outs made with other settings ({'; '.join(changed)}); use another "
            "--out, or remove that folder"
        )
    return index
