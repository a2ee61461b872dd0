"""What Kaggle fixed: names, sizes, cars and views, the split by car, the CSV header.

Knows no file system and no picture: strings and numbers alone.
"""

import re
from collections.abc import Iterable

from carvana_ray.errors import InputError

HEIGHT, WIDTH = 1280, 1918
VIEWS = 16
CSV_HEADER = ("img", "rle_mask")

TRAIN, MASKS, TEST = "train", "train_masks", "test"
SAMPLE_SUBMISSION = "sample_submission.csv"
CHECKSUMS = "crc32.csv"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MASK_SUFFIXES = (".gif", ".png")

KAGGLE_NAME = re.compile(r"[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg")
_CAR_AND_VIEW = re.compile(r"(.+)_(\d{2})")
# A plain file name: no path, nothing hidden, nothing that a terminal or a spreadsheet would obey
# (a cell that begins with = + - or @ is a formula: owasp.org/www-community/attacks/CSV_Injection).
# \ud800-\udfff: bytes of a name that are no UTF-8, as Python reads them from a folder. The others
# end a line, or turn the direction of text on a terminal.
_ODD = r"/\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_PLAIN_NAME = re.compile(rf"[^.=+\-@\s{_ODD}][^{_ODD}]{{0,254}}")


def require_safe_names(names: Iterable[str], where: str) -> None:
    """Raise `InputError` if one of some file names is none, or could be taken for something else.

    Args:
        names: of files, before they touch a path or a table.
        where: they come from, for the message.
    """
    odd = [name for name in names if not _PLAIN_NAME.fullmatch(name)]
    if odd:
        raise InputError(
            f"{where}: {len(odd)} names that are no plain file names, the first is {odd[0][:80]!r} "
            "(no path, no leading . = + - @ or space, no control characters, at most 255 "
            "characters); rename the files"
        )


def parse_name(name: str) -> tuple[str, int]:
    """Return the car and the view (1..99; 0 if the name has none) of a picture's file name.

    ``0cdf5b5d0ce1_04.jpg`` is view 4 of car ``0cdf5b5d0ce1``. A name outside that grammar is a car
    of its own, so that pictures of any catalogue can be split and reported.
    """
    stem = name.rsplit(".", 1)[0]
    found = _CAR_AND_VIEW.fullmatch(stem)
    return (found[1], int(found[2])) if found else (stem, 0)


def car_of(name: str) -> str:
    """Return the car of a picture's file name."""
    return parse_name(name)[0]


def mask_stem(name: str) -> str:
    """Return the mask's file name without suffix: ``a_04.jpg`` has ``a_04_mask`` (.gif or .png)."""
    return name.rsplit(".", 1)[0] + "_mask"


def pair_with_masks(pictures: Iterable[str], masks: Iterable[str]) -> list[tuple[str, str]]:
    """Return (picture, mask) file names, sorted by picture.

    Masks without picture are no fault (a folder may hold more masks than are used).

    Raises:
        InputError: a picture has no mask; the first three are named.
    """
    by_stem = {name.rsplit(".", 1)[0]: name for name in masks}
    names = sorted(pictures)
    missing = [name for name in names if mask_stem(name) not in by_stem]
    if missing:
        raise InputError(
            f"--data: {len(missing)} of {len(names)} training pictures have no mask in "
            f"{MASKS}/: {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''} "
            f"(looked for {mask_stem(missing[0])}.gif or .png)"
        )
    return [(name, by_stem[mask_stem(name)]) for name in names]


def unique_cars(names: Iterable[str]) -> list[str]:
    """Return the sorted cars of some picture names."""
    return sorted({car_of(name) for name in names})
