"""Kaggle's data set by name: folders, file names, the CSV header."""

import re
from collections.abc import Iterable

from carvana_ray.errors import InputError, plural

HEIGHT, WIDTH = 1280, 1918
VIEWS = 16
CSV_HEADER = ("img", "rle_mask")

TRAIN, MASKS, TEST = "train", "train_masks", "test"
SAMPLE_SUBMISSION = "sample_submission.csv"
CHECKSUMS = "crc32.csv"
MAX_NAMED = 10  # unsafe names in a message
# Of an image file. Its format is decided by its first bytes (`images.formats`).
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif")
HEIC_SUFFIXES = (".heic", ".heif")

KAGGLE_NAME = re.compile(r"[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg")
# Not allowed anywhere in a name: path separators, control characters, line ends, characters that
# change the direction of text on a terminal, and \ud800-\udfff, which Python reads for bytes that
# are not UTF-8. Not allowed at the start: a dot (hidden file), a space, and = + - @ (a flag, or a
# formula in a spreadsheet: owasp.org/www-community/attacks/CSV_Injection).
_UNSAFE = r"/\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_SAFE_NAME = re.compile(rf"[^.=+\-@\s{_UNSAFE}][^{_UNSAFE}]{{0,254}}")


def is_safe_name(name: str) -> bool:
    """Return whether a name is safe as a file name, in a table and on a terminal."""
    return bool(_SAFE_NAME.fullmatch(name))


def require_safe_names(names: Iterable[str], where: str) -> None:
    """Raise `InputError` if names are not safe as file names, in a table and on a terminal.

    Args:
        where: the folder or file that holds the names, for the error message.
    """
    unsafe = [name for name in names if not is_safe_name(name)]
    if unsafe:
        first, *others = (repr(name[:80]) for name in unsafe[:MAX_NAMED])
        more = f"; others are {', '.join(others)}" if others else ""
        raise InputError(
            f"{where}: {plural(len(unsafe), 'unsafe file name')}, the first is {first} "
            "(not allowed: a path, a leading . = + - @ or space, control characters, more than 255 "
            f"characters); rename the files{more}"
        )


def mask_stem(name: str) -> str:
    """Return the name of an image's mask without suffix: ``a_04_mask`` for ``a_04.jpg``."""
    return name.rsplit(".", 1)[0] + "_mask"
