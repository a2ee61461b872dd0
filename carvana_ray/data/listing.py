"""What a folder holds: its images, and how many other files and folders of which kind."""

import functools
import importlib.util
import logging
from collections import Counter
from collections.abc import Mapping

from carvana_ray import storage
from carvana_ray.data import layout
from carvana_ray.errors import plural
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

FOLDER, SYSTEM, UNSAFE = "folder", "system", "unsafe name"  # kinds other than a suffix
HEIC_PACKAGE, HEIC_REMEDY = "pillow_heif", "pip install 'carvana-ray[heic]'"

# Files and folders that systems, cameras' disks and network drives leave among images.
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
_OWN_FILES = {layout.SAMPLE_SUBMISSION, layout.CHECKSUMS}  # they are read, not left out


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Return the suffixes of image files that this installation reads."""
    if importlib.util.find_spec(HEIC_PACKAGE):
        return layout.IMAGE_SUFFIXES + layout.HEIC_SUFFIXES
    return layout.IMAGE_SUFFIXES


def is_image(name: str) -> bool:
    """Return whether a file name is that of an image. Its first bytes have the last word."""
    return name.lower().endswith(image_suffixes()) and not name.startswith("._")


def kind_of(name: str) -> str:
    """Return the kind of a file that is left out: `SYSTEM`, its suffix, or ``no suffix``."""
    if name.startswith(".") or name.lower() in _SYSTEM_FILES:
        return SYSTEM
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot and suffix else "no suffix"


def scan_folder(folder: str) -> tuple[list[FileInfo], Counter[str]]:
    """Return the images in a folder by name, hidden ones left out, and the others by kind.

    Raises:
        InputError: the folder does not exist.
    """
    found = storage.list_all(folder)
    images, skipped = [], Counter[str]()
    for file in found.files:
        if is_image(file.name) and not file.name.startswith("."):
            images.append(file)
        elif file.name not in _OWN_FILES:
            skipped[kind_of(file.name)] += 1
    for name in (*found.folders, *found.linked_folders):
        skipped[SYSTEM if is_system_folder(name) else FOLDER] += 1
    return images, skipped


def is_system_folder(name: str) -> bool:
    """Return whether a folder is hidden, or one that a system makes."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Return what was left out in words: ``3 .heic (pip install ...), 2 folders``."""
    nouns = {FOLDER: "folder", SYSTEM: "system file", UNSAFE: "unsafe name"}
    parts = []
    for kind, count in sorted(skipped.items(), key=lambda item: (item[0] in nouns, item[0])):
        remedy = f" ({HEIC_REMEDY})" if kind in layout.HEIC_SUFFIXES else ""
        named = plural(count, nouns[kind]) if kind in nouns else f"{count} {kind}"
        parts.append(f"{named}{remedy}")
    return ", ".join(parts)


def log_skipped(skipped: Mapping[str, int]) -> None:
    """Log in one line what was left out, if anything was."""
    if skipped:
        log.info("left out: %s", describe_skipped(skipped))
