"""The index of a folder of cut-outs: their settings and source images.

    cutouts/_cutouts.json     settings, and folder, name, size and version of each source image
    cutouts/red_roadster.png  cut out of red_roadster.jpg
    cutouts/monday/blue.png   cut out of monday/blue.jpg

A cut-out is done when its file exists and the index lists it: the file then is of the listed
version, also while several commands add images or have seen several versions of one image. `sync`
replaces the index only in the state that it has read, and removes a file only while the index lists
no version of it. A command that has written a file looks into the index afterwards (`tags`).
"""

import functools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.storage import FileInfo

FORMAT = 1
FILE = "_cutouts.json"
OF_FRAMES = "size", "margin", "cars_by"  # settings that cut-outs without a frame do not have


@dataclass(frozen=True)
class SourceImage:
    """An image to cut out.

    Attributes:
        folder: URI of its folder.
        entry: the image in that folder.
        output: path of its cut-out without suffix, relative to the folder of cut-outs; "" is the
            image's name. The index has it as the name of the cut-out.
    """

    folder: str
    entry: FileInfo
    output: str = field(default="", compare=False)

    @property
    def uri(self) -> str:
        return storage.join(self.folder, self.entry.name)

    @property
    def tag(self) -> str:
        """Size and version of the image in one text."""
        return f"{self.entry.size} {self.entry.version}"

    def cutout(self, suffix: str) -> str:
        """Return the path of its cut-out, relative to the folder of cut-outs."""
        return (self.output or storage.name(self.entry.name).rsplit(".", 1)[0]) + suffix

    def without_version(self) -> "SourceImage":
        """Return the entry of an image whose cut-out, if it exists, is of no known version."""
        return replace(self, entry=replace(self.entry, version=""))


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
        changed = {
            name: _describe_change(name, self.settings.get(name), settings.get(name))
            for name in dict.fromkeys((*settings, *self.settings))
            if self.settings.get(name) != settings.get(name)
        }
        if changed:
            # Of two models or frames more settings may differ, such as the downscale or the margin,
            # and the name says all.
            if "frame" in changed:
                changed = {name: changed[name] for name in changed if name not in OF_FRAMES}
            words = changed.get("model") or "; ".join(changed.values())
            raise InputError(
                f"{folder}: has cut-outs made with other settings ({words}); use another folder, "
                f"such as --out {storage.parent(folder)}-2, or remove the old cut-outs"
            )


def _describe_change(name: str, old: Any, new: Any) -> str:
    """Return in words how a setting differs."""
    if name == "model":
        return "another model, or masks of a submission"
    if name == "version":
        return "another version of this program"
    values = ["none" if value is None else str(value) for value in (old, new)]
    if name == "background":
        values = [_describe_background(value) for value in (old, new)]
        if values[0] == values[1]:
            return "another background image"
    return f"{name.replace('_', ' ')}: was {values[0]}, is now {values[1]}"


def _describe_background(value: Any) -> str:
    if isinstance(value, list):
        return "#" + "".join(f"{part:02x}" for part in value)
    return "an image" if str(value).startswith("picture") else str(value)


def by_output_name(sources: Iterable[SourceImage], suffix: str) -> dict[str, SourceImage]:
    """Return the images by name of their cut-out.

    Raises:
        InputError: two images have the same path below the folders that were named, but for the
            suffix.
    """
    named: dict[str, SourceImage] = {}
    for source in sources:
        name = source.cutout(suffix)
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

    The entry of a changed image is replaced twice. The first time it loses its version: whatever
    stops this command, the old file is not trusted. Then the file is removed, and the second time
    the entry gets the new version.

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
    while True:
        state, index, existing = _snapshot(folder, wanted, suffix)
        if index:
            index.require_settings(settings, folder)
        old = index.sources if index else {}
        _require_own(folder, old, existing, wanted)
        stale = {name for name, source in wanted.items() if old.get(name, source) != source}
        distrusted = {name: old[name].without_version() for name in stale}
        if not distrusted.items() <= old.items():
            _replace(folder, state, CutoutIndex(dict(settings), {**old, **distrusted}))
            continue
        for name in stale & existing:
            storage.remove(storage.join(folder, name))
        new = CutoutIndex(dict(settings), {**old, **wanted})
        if new == index or _replace(folder, state, new):
            return [name for name in wanted if name in stale or name not in existing]


def _require_own(
    folder: str,
    old: Mapping[str, SourceImage],
    existing: Collection[str],
    wanted: Mapping[str, SourceImage],
) -> None:
    """Raise `InputError` if a wanted name belongs to another image or to an unlisted file."""
    for name, source in sorted(wanted.items()):
        if name not in old and name in existing:
            raise InputError(
                f"{storage.join(folder, name)}: the file exists, but {FILE} does not list it; use "
                "another --out, or remove that folder"
            )
        if name in old and old[name].uri != source.uri:
            raise InputError(
                f"{storage.join(folder, name)}: the cut-out of {old[name].uri} has the name that "
                f"{source.uri} needs; use another --out"
            )


def missing(folder: str, wanted: Mapping[str, SourceImage], suffix: str) -> list[str]:
    """Return the names of the wanted cut-outs that do not exist, or whose image is another one."""
    _, index, existing = _snapshot(folder, wanted, suffix)
    listed = index.sources if index else {}
    return [name for name in wanted if name not in existing or listed.get(name) != wanted[name]]


def finished(folder: str, suffix: str) -> dict[str, SourceImage]:
    """Return the images whose cut-out exists, by name of the cut-out."""
    _, index = _load(folder)
    listed = index.sources if index else {}
    places = {storage.parent(name) for name in listed}
    existing = {name for place in places for name in _list_cutouts(folder, place, suffix)}
    return {name: listed[name] for name in sorted(listed.keys() & existing)}


def tags(folder: str) -> Mapping[str, str]:
    """Return the tag of each listed image by name of its cut-out.

    A command calls this after it has written a cut-out. With another tag the file may be of an old
    version, and the command has to remove it. Otherwise a later `sync` of another command finds the
    file and removes it if need be.
    """
    return _tags(folder, storage.state(storage.join(folder, FILE)))


@functools.lru_cache(maxsize=1)
def _tags(folder: str, _state: str) -> Mapping[str, str]:
    _, index = _load(folder)
    return {name: source.tag for name, source in index.sources.items()} if index else {}


def _snapshot(
    folder: str, wanted: Iterable[str], suffix: str
) -> tuple[str, CutoutIndex | None, set[str]]:
    """Return the state of the index, the index, and the cut-outs that existed meanwhile.

    The cut-outs are those of the folders of the wanted ones.
    """
    places = {storage.parent(name) for name in wanted}
    while True:
        state, index = _load(folder)
        existing = {name for place in places for name in _list_cutouts(folder, place, suffix)}
        if storage.state(storage.join(folder, FILE)) == state:
            return state, index, existing


def _list_cutouts(folder: str, place: str, suffix: str) -> set[str]:
    """Return the paths of the cut-outs in a folder below the folder of cut-outs, or in itself."""
    uri = storage.join(folder, place) if place else folder
    if not storage.exists(uri):
        return set()
    start = f"{place}/" if place else ""
    return {f"{start}{entry.name}" for entry in storage.list_files(uri, (suffix,))}


def _replace(folder: str, state: str, index: CutoutIndex) -> bool:
    return storage.write_atomic(storage.join(folder, FILE), index.to_bytes(), expected=state)


def _load(folder: str) -> tuple[str, CutoutIndex | None]:
    """Return the state of the index and the index."""
    uri = storage.join(folder, FILE)
    state = storage.state(uri)
    if not state:
        return state, None
    data = storage.read(uri)
    try:
        return state, CutoutIndex.from_bytes(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{uri}: damaged ({error}); use another --out, or remove that folder"
        ) from error
