"""The sizes of cars as the measuring pass finds them, view by view."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from carvana_ray.cutouts import extents
from carvana_ray.cutouts.framing import Size
from carvana_ray.stages.cutout.measure_cars import NO_CAR
from carvana_ray.stages.cutout.write_cutouts import PROBLEM
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.storage import FileInfo

CARS_AT_ONCE = 64  # cars whose views are measured in mixed order, and listed at once


class CarSizes:
    """Gathers the sizes of views, and lists each car once all its views are measured.

    Args:
        folder: URI of the folder of cut-outs.
        cars: car of each image to be measured, by image name.
        known: the extents of cars that are listed already.
    """

    def __init__(self, folder: str, cars: Mapping[str, str], known: dict[str, Size]) -> None:
        self.known = known
        self.sizes: dict[str, Size] = {}  # by image name, of those that show a car
        self.problems: dict[str, str] = {}  # by image name, of those that cannot be reached
        self.listed: dict[str, Size] = {}  # cars that this command has measured
        self._folder, self._cars = folder, cars
        self._left = Counter(cars.values())  # views that are not measured yet
        self._largest: dict[str, Size | None] = {}
        self._waiting = set[str]()  # cars with a view that cannot be reached
        self._new: dict[str, Size] = {}

    def add(self, batch: Columns) -> None:
        """Add results of `measure_masks`."""
        columns = (batch[name].tolist() for name in ("img", "status", "width", "height"))
        for name, status, width, height in zip(*columns, strict=True):
            car = self._cars[name]
            if status.startswith(PROBLEM):
                self.problems[name] = status
                self._waiting.add(car)
            if (width, height) != NO_CAR:
                self.sizes[name] = width, height
                self._largest[car] = extents.extent_of([self._largest.get(car), (width, height)])
            self._left[car] -= 1
            largest, fixed = self._largest.get(car), car in self.known or car in self._waiting
            if largest and not self._left[car] and not fixed:
                self._new[car] = largest
        if len(self._new) >= CARS_AT_ONCE:
            self.save()

    def save(self) -> None:
        """List the cars that are measured."""
        if self._new:
            self.known = extents.add(self._folder, self._new)
            self.listed |= self._new
            self._new = {}

    def late(self) -> list[str]:
        """Return the measured images whose car had its extent before, from whatever command."""
        return [
            name
            for name, car in self._cars.items()
            if car in self.known and self.listed.get(car) != self.known[car]
        ]


def mix_cars(views: Iterable[FileInfo], cars: Mapping[str, str]) -> list[FileInfo]:
    """Return views in random order, but `CARS_AT_ONCE` cars after the others.

    So cars are listed all along, and a killed command has not measured them in vain. See also
    `FailureLimits.add_block`.
    """
    views_of: dict[str, list[FileInfo]] = {}
    for view in views:
        views_of.setdefault(cars[view.name], []).append(view)
    order, mixed = random.sample(list(views_of), len(views_of)), list[FileInfo]()
    for first in range(0, len(order), CARS_AT_ONCE):
        some = [view for car in order[first : first + CARS_AT_ONCE] for view in views_of[car]]
        mixed += random.sample(some, len(some))
    return mixed
