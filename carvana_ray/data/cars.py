"""Which images show the same car, and in which view."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.config.cars_flag import CAR_AND_VIEW, car_pattern
from carvana_ray.data.csv_reader import iter_table
from carvana_ray.errors import plural

METADATA = "metadata.csv"
NO_VIEW = 0
_TURNTABLE = re.compile(r"([0-9a-f]{12})_(0[1-9]|1[0-6])")
_NUMBERED = r"(.+)_(\d{2})\Z"  # for names before --cars-by existed


@dataclass(frozen=True)
class CarNames:
    """The rule by which file names give cars.

    Attributes:
        pattern: of `car_pattern`; None for Kaggle's names and those of `ids`.
        ids: cars that metadata.csv lists.
    """

    pattern: re.Pattern[str] | None = None
    ids: frozenset[str] = frozenset()

    def parse(self, name: str) -> tuple[str, int]:
        """Return the car and the view of an image's file name.

        ``0cdf5b5d0ce1_04.jpg`` is view 4 of car ``0cdf5b5d0ce1``. An image to which the rule does
        not apply is `NO_VIEW` of its own car, whose name is that of the file without suffix. Of a
        path the rule sees the file name, and the folder is part of the car.
        """
        folder, slash, file = name.rpartition("/")
        car, view = self._parse_stem(file.rsplit(".", 1)[0])
        return f"{folder}{slash}{car}", view

    def _parse_stem(self, stem: str) -> tuple[str, int]:
        if self.pattern:
            match = self.pattern.match(stem)
            return _read_groups(match) if match else (stem, NO_VIEW)
        match = _TURNTABLE.fullmatch(stem) or re.match(_NUMBERED, stem)
        if match and (match.re is _TURNTABLE or match[1] in self.ids):
            return match[1], int(match[2])
        return stem, NO_VIEW

    def car_of(self, name: str) -> str:
        """Return the car of an image's file name."""
        return self.parse(name)[0]

    def unique(self, names: Iterable[str]) -> list[str]:
        """Return the cars of images, each once, sorted."""
        return sorted({self.car_of(name) for name in names})


KAGGLE = CarNames()


def _read_groups(match: re.Match[str]) -> tuple[str, int]:
    groups, names = match.groups(), match.re.groupindex
    car = match["car"] if "car" in names else groups[0]
    view = match["view"] if "view" in names else (groups[1:2] or ("",))[0]
    return car or match.string, int(view) if view and view.isdecimal() else NO_VIEW


def load_car_names(data: str, pattern: str, names: Iterable[str]) -> CarNames:
    """Return the rule for the images of a data set.

    Args:
        data: URI of the folder that may hold metadata.csv.
        pattern: the flag --cars-by, or "".
        names: file names or paths of the images.

    Raises:
        InputError: the pattern is wrong, or metadata.csv is needed and cannot be read.
    """
    if pattern:
        return CarNames(car_pattern(pattern))
    if all(_TURNTABLE.fullmatch(storage.name(name).rsplit(".", 1)[0]) for name in names):
        return KAGGLE
    uri = storage.join(data, METADATA)
    if not storage.exists(uri):
        return KAGGLE
    table = iter_table(uri)
    _, header = next(table, (1, []))
    if "id" not in header:
        return KAGGLE  # another program's file
    column = header.index("id")
    return CarNames(ids=frozenset(row[column] for _, row in table if len(row) > column))


def pattern_of_model(flag: str, training: Mapping[str, Any]) -> str:
    r"""Return the pattern by which the training of a model sorted its images.

    Args:
        flag: --cars-by of this job, which comes first.
        training: the flags of the training. Those of older versions have no ``cars_by``: for them
            any ``_NN`` at the end of a name was a view.
    """
    return flag or str(training.get("cars_by", _NUMBERED))


def describe_cars(rule: CarNames, names: Sequence[str]) -> str:
    """Return the number of cars in words: ``120 cars (each image is one; --cars-by groups them)``.

    If the names look like views of several cars, the pattern that groups them is named.
    """
    count = len(rule.unique(names))
    said = plural(count, "car")
    if count < len(names) or rule.pattern:
        return said
    grouped = len(CarNames(car_pattern(CAR_AND_VIEW)).unique(names))
    if 1 < grouped < count:
        return f"{said} (each image is one; --cars-by {CAR_AND_VIEW} makes them {grouped} cars)"
    return f"{said} (each image is one; --cars-by groups them)"
