"""What Kaggle fixed: names, sizes, cars and views, the split by car, the CSV header.

Knows no file system and no picture: strings and numbers alone.
"""

import random
import re
from collections.abc import Iterable, Sequence

from carvana_ray.errors import InputError

HEIGHT, WIDTH = 1280, 1918
VIEWS = 16
HEADER = ("img", "rle_mask")

TRAIN, MASKS, TEST = "train", "train_masks", "test"
SAMPLE_SUBMISSION = "sample_submission.csv"
CHECKSUMS = "crc32.csv"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MASK_SUFFIXES = (".gif", ".png")

KAGGLE_NAME = re.compile(r"[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg")
_CAR_AND_VIEW = re.compile(r"(.+)_(\d{2})")
# A plain file name: no path, nothing hidden, nothing that a terminal or a spreadsheet would obey
# (a cell that begins with = + - or @ is a formula: owasp.org/www-community/attacks/CSV_Injection).
# \ud800-\udfff: bytes of a name that are no UTF-8, as Python reads them from a folder. The others
# end a line, or turn the direction of text on a terminal.
_ODD = r"/\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_PLAIN_NAME = re.compile(rf"[^.=+\-@\s{_ODD}][^{_ODD}]{{0,254}}")


def plain(names: Iterable[str], where: str) -> None:
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


def car_and_view(name: str) -> tuple[str, int]:
    """Return the car and the view (1..99; 0 if the name has none) of a picture's file name.

    ``0cdf5b5d0ce1_04.jpg`` is view 4 of car ``0cdf5b5d0ce1``. A name outside that grammar is a car
    of its own, so that pictures of any catalogue can be split and reported.
    """
    stem = name.rsplit(".", 1)[0]
    found = _CAR_AND_VIEW.fullmatch(stem)
    return (found[1], int(found[2])) if found else (stem, 0)


def car_of(name: str) -> str:
    """Return the car of a picture's file name."""
    return car_and_view(name)[0]


def mask_stem(name: str) -> str:
    """Return the mask's file name without suffix: ``a_04.jpg`` has ``a_04_mask`` (.gif or .png)."""
    return name.rsplit(".", 1)[0] + "_mask"


def pair(pictures: Iterable[str], masks: Iterable[str]) -> list[tuple[str, str]]:
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


def cars_in(names: Iterable[str]) -> list[str]:
    """Return the sorted cars of some picture names."""
    return sorted({car_of(name) for name in names})


def how_many(share: str, total: int, flag: str) -> int:
    """Return the number that a COUNT (``16``) or a FRACTION (``0.15``) of `total` stands for.

    Raises:
        InputError: not a number, negative, a fraction of 1 or more, a count above `total`.
    """
    try:
        value = float(share) if "." in share else int(share)
    except ValueError:
        raise InputError(
            f"{flag} {share}: neither a count (16), nor a fraction below 1 (0.15), nor a file"
        ) from None
    if not 0 <= value < (1 if "." in share else total + 1):
        raise InputError(f"{flag} {share}: must lie between 0 and the {total} cars that there are")
    return round(value * total) if "." in share else int(value)


def _at_least_one(share: str, total: int, flag: str) -> int:
    """Return `how_many`, but 1 for a share that rounds to 0: a small data set still needs one."""
    asked = bool(float(share)) if (count := how_many(share, total, flag)) == 0 else True
    return max(count, 1) if asked and total else count


def split(
    cars: Sequence[str], holdout: str | Sequence[str], val: str, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Split cars into (train, val, holdout), each sorted; views of one car stay together.

    Args:
        cars: all cars, in any order.
        holdout: COUNT or FRACTION as text, drawn by a seeded shuffle of the sorted cars; or the
            cars.
        val: COUNT or FRACTION of the cars that remain.
        seed: of the shuffle.

    Raises:
        InputError: a share is out of range, a held-out car is not there, no car remains to train.
    """
    order = sorted(cars)
    random.Random(seed).shuffle(order)
    if isinstance(holdout, str):
        held = order[: _at_least_one(holdout, len(order), "--holdout-cars")]
    else:
        held = sorted(set(holdout))
        if unknown := sorted(set(held) - set(order)):
            raise InputError(f"--holdout-cars names {unknown[0]}, which --data does not have")
    rest = [car for car in order if car not in set(held)]
    cut = _at_least_one(val, len(rest), "--val-cars")
    if len(rest) <= cut:
        raise InputError(
            f"--holdout-cars and --val-cars leave no car to train on: {len(order)} cars, "
            f"{len(held)} held out, {cut} for validation"
        )
    return sorted(rest[cut:]), sorted(rest[:cut]), sorted(held)
