"""The images that a cut-out job works on: folders with their sub-folders, and single files.

Cut-outs keep the names of their images, and the sub-folders below a folder that was named. A name
that a shell or a spreadsheet could misread is changed: ``-car.jpg`` becomes ``_car.png``.
"""

import dataclasses
import itertools
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NoReturn

from carvana_ray import storage
from carvana_ray.data import layout
from carvana_ray.data.catalog import image_dir, require_access
from carvana_ray.data.layout import is_safe_name
from carvana_ray.data.listing import (
    FOLDER,
    SYSTEM,
    UNSAFE,
    describe_skipped,
    is_image,
    is_system_folder,
    kind_of,
)
from carvana_ray.data.packed import advised, require_unpacked
from carvana_ray.errors import InputError
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

MAX_NAMED = 3  # files that are left out and named in a warning
_UNSAFE_START = re.compile(r"^[.=+\-@\s]+")


@dataclasses.dataclass(frozen=True)
class CollectedImages:
    """Images of any folders.

    Attributes:
        folder: URI of the folder above all of them.
        entries: the images by name, which is relative to `folder`.
        outputs: path of the cut-out of each image, by name, without suffix.
        skipped: number of files and folders that are left out, by kind.
        named: names of files that are left out and that a person may look for.
    """

    folder: str
    entries: list[FileInfo]
    outputs: dict[str, str]
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    named: list[str] = dataclasses.field(default_factory=list)

    def log_skipped(self) -> None:
        """Log in one line what is left out, with examples."""
        if self.skipped:
            names = ", ".join(repr(name[:80]) for name in self.named[:MAX_NAMED])
            more = " ..." if len(self.named) > MAX_NAMED else ""
            examples = f"; for example {names}{more}" if names else ""
            log.info("left out: %s%s", describe_skipped(self.skipped), examples)


class _Collector:
    """Gathers images of several folders, with their paths below the folders that were named."""

    def __init__(self, recursive: bool, avoid: Collection[str], marker: str) -> None:
        self.found: dict[tuple[str, FileInfo], str] = {}  # output by folder and image
        self.skipped = Counter[str]()
        self.named: list[str] = []
        self._recursive, self._avoid, self._marker = recursive, avoid, marker

    def add_files(self, folder: str, names: Sequence[str]) -> None:
        """Add images of one folder.

        Raises:
            InputError: one does not exist.
        """
        listed = storage.list_all(folder)
        existing = {file.name: file for file in listed.files}
        for name in names:
            if name in existing:
                self._add(folder, existing[name], "")
            elif name in listed.folders or name in listed.linked_folders:
                self.add_folder(storage.join(folder, name))
            else:
                raise InputError(f"{storage.join(folder, name)}: no such image")

    def add_folder_or_other(self, uri: str) -> None:
        """Add the images of a folder; count a file that is no image.

        Raises:
            InputError: there is no such file or folder.
        """
        try:
            self.add_folder(image_dir(uri))
        except InputError:
            if not storage.exists(uri):
                raise InputError(f"{uri}: no such image or folder") from None
            self.skip(kind_of(storage.name(uri)), storage.name(uri))

    def add_folder(self, folder: str, below: str = "") -> None:
        """Add the images of a folder, and of its sub-folders if the job walks them.

        Args:
            folder: URI.
            below: path from the folder that was named to this one.

        Raises:
            InputError: the folder does not exist.
        """
        listed = storage.list_all(folder)
        for file in listed.files:
            if is_image(file.name):
                self._add(folder, file, below)
            elif file.name not in (layout.SAMPLE_SUBMISSION, layout.CHECKSUMS):
                self.skip(kind_of(file.name), "" if below else file.name)
        for _ in listed.linked_folders:  # one may lead back to here
            self.skip(FOLDER)
        for name in listed.folders:
            uri = storage.join(folder, name)
            if is_system_folder(name):
                self.skipped[SYSTEM] += 1
            elif self._recursive and not self._is_result(uri, name):
                self.add_folder(uri, f"{below}{name}/")
            else:
                self.skipped[FOLDER] += 1

    def _is_result(self, uri: str, name: str) -> bool:
        """Return whether a folder holds masks, or results of this program such as cut-outs."""
        if name == layout.MASKS or uri in self._avoid:
            return True

        def has(*names: str) -> bool:
            return all(storage.exists(storage.join(uri, name)) for name in names)

        return has(self._marker) or has(f"cutouts/{self._marker}") or has("report.html", "report")

    def _add(self, folder: str, file: FileInfo, below: str) -> None:
        output = safe_path(f"{below}{file.name.rpartition('.')[0]}")
        if output is None:
            self.skip(UNSAFE, file.name)
        else:
            self.found.setdefault((folder, file), output)

    def skip(self, kind: str, name: str = "") -> None:
        """Count a file that is left out, and keep the name of one that a person may look for."""
        self.skipped[kind] += 1
        if name and kind != SYSTEM:
            self.named.append(name)


def collect_images(
    uris: Sequence[str], recursive: bool, avoid: Collection[str] = (), marker: str = ""
) -> CollectedImages:
    """Return the images of folders and single files.

    Args:
        uris: absolute URIs of images, or of folders of images; of a folder with test/ the images in
            there are taken.
        recursive: whether to walk sub-folders. Links to folders, masks and results of this program
            are left out.
        avoid: URIs of folders that are not walked.
        marker: name of a file that folders of results have.

    Raises:
        InputError: a file or folder does not exist, there are no images, or no common folder.
        StorageAccessError: reading the images is not permitted.
    """
    collector = _Collector(recursive, avoid, marker)
    files: dict[str, list[str]] = {}
    for uri in uris:
        if is_image(storage.name(uri)):
            files.setdefault(storage.parent(uri), []).append(storage.name(uri))
        else:
            collector.add_folder_or_other(uri)
    for folder, names in files.items():
        collector.add_files(folder, names)
    found, skipped = collector.found, collector.skipped
    if not found:
        _raise_empty(uris, skipped)
    parent = common_parent({folder for folder, _ in found})
    start = len(parent.rstrip("/")) + 1
    outputs = {storage.join(f, file.name)[start:]: path for (f, file), path in found.items()}
    entries = sorted(
        dataclasses.replace(file, name=storage.join(folder, file.name)[start:])
        for folder, file in found
    )
    require_access(parent, entries)
    return CollectedImages(parent, entries, outputs, skipped, collector.named)


def _raise_empty(uris: Sequence[str], skipped: Counter[str]) -> NoReturn:
    """Raise `InputError` for files and folders without images, with what they have instead."""
    for uri in uris:
        require_unpacked(uri)
    others = f"; left out: {describe_skipped(skipped)}" if skipped else ""
    named = f"{', '.join(uris[:3])}{' ...' if len(uris) > 3 else ''}"
    error = InputError(f"--data: no images ({', '.join(layout.IMAGE_SUFFIXES)}) in {named}{others}")
    if storage.list_dirs(storage.parent(uris[0])).count(storage.name(uris[0])):
        with advised(uris[0]):
            raise error
    raise error


def safe_path(path: str) -> str | None:
    """Return a path that is safe as a file name on a terminal; None if no such name is near.

    A leading ``. = + - @`` or space of a part becomes ``_``. Control characters and the like have
    no safe form.
    """
    parts = [_UNSAFE_START.sub("_", part) or "_" for part in path.split("/")]
    return "/".join(parts) if all(map(is_safe_name, parts)) else None


def common_parent(folders: Iterable[str]) -> str:
    """Return the deepest folder that contains all folders or is the only one."""
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    same = [names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, levels)]
    if not same or (same[0] == "s3:" and len(same) < 3):  # "s3:", "", bucket
        raise InputError("images in several buckets, or on disk and in S3: run a command for each")
    return "/".join(same) or "/"
