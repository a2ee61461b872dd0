"""The flag ``--cars-by``: how file names give the car of an image."""

import re
from dataclasses import dataclass

from carvana_ray.config.cli import option
from carvana_ray.config.flags import RayFlags
from carvana_ray.errors import InputError

CAR_AND_VIEW = "CAR_VIEW"  # the value of the flag that fits most names
_WORDS = {"CAR": "(?P<car>.+?)", "VIEW": r"(?P<view>\d+)", r"\*": ".*"}


@dataclass(frozen=True, kw_only=True)
class CarsFlags(RayFlags):
    """Flag of every job that sorts images by car."""

    cars_by: str = option(
        "",
        f"file names as {CAR_AND_VIEW}, or a regular expression whose first group is the car "
        "(default: Kaggle's names and the cars of metadata.csv, else each image is a car)",
        group="input",
        metavar="PATTERN",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cars_by:
            car_pattern(self.cars_by)


def car_pattern(text: str) -> re.Pattern[str]:
    r"""Return the regular expression for the start of a file name that a pattern stands for.

    Its group ``car`` or else its first one is the car, its group ``view`` or else its second one
    the view. A text without a parenthesis is the whole name without suffix: ``CAR`` stands for any
    text, ``VIEW`` for digits, ``*`` for anything, so ``CAR_VIEW`` is ``(.+?)_(\d+)\Z``.

    Raises:
        InputError: the expression is wrong or has no group for the car.
    """
    source = text
    if "(" not in text:
        source = re.escape(text) + r"\Z"
        for word, expression in _WORDS.items():
            source = source.replace(word, expression)
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise InputError(f"--cars-by {text}: {error}") from error
    if not pattern.groups or ("view" in pattern.groupindex and "car" not in pattern.groupindex):
        raise InputError(
            f"--cars-by {text}: must contain CAR, as in {CAR_AND_VIEW}, or be a regular expression "
            "whose first group is the car"
        )
    return pattern
