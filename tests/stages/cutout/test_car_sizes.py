"""A car gets its extent when all its views are measured, and only then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carvana_ray.cutouts import extents
from carvana_ray.cutouts.framing import Size
from carvana_ray.stages.cutout import car_sizes
from carvana_ray.stages.cutout.car_sizes import CARS_AT_ONCE, CarSizes, mix_cars
from carvana_ray.storage import FileInfo

CARS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}


def results(sizes: Mapping[str, Size | str]) -> dict[str, Any]:
    """Return results of `measure_masks`: the sizes of images, or their statuses."""
    found = [(0, 0) if isinstance(size, str) else size for size in sizes.values()]
    return {
        "img": np.array(list(sizes)),
        "status": np.array([size if isinstance(size, str) else "ok" for size in sizes.values()]),
        "width": np.array([width for width, _ in found]),
        "height": np.array([height for _, height in found]),
    }


def test_a_car_is_listed_once_all_its_views_are_measured(tmp_path: Path) -> None:
    sizes = CarSizes(str(tmp_path), CARS, {})
    sizes.add(results({"a1": (3, 2), "b1": (9, 9)}))
    sizes.save()
    assert extents.load(str(tmp_path)) == {}
    sizes.add(results({"a2": (2, 4)}))
    sizes.save()
    assert extents.load(str(tmp_path)) == sizes.known == {"a": (3, 4)}
    sizes.add(results({"b2": (0, 0)}))
    sizes.save()
    assert sizes.known == {"a": (3, 4), "b": (9, 9)}
    assert sizes.late() == []


def test_a_car_with_a_view_that_cannot_be_reached_waits_and_a_bad_view_is_no_obstacle(
    tmp_path: Path,
) -> None:
    sizes = CarSizes(str(tmp_path), CARS, {})
    unreachable = "problem: a1: unreachable: input/output error"
    sizes.add(results({"a1": unreachable, "a2": (2, 4), "b1": "truncated: half", "b2": (5, 5)}))
    sizes.save()
    assert extents.load(str(tmp_path)) == sizes.known == {"b": (5, 5)}
    assert sizes.problems == {"a1": unreachable}


def test_a_car_that_no_view_shows_has_no_extent(tmp_path: Path) -> None:
    sizes = CarSizes(str(tmp_path), CARS, {})
    sizes.add(results(dict.fromkeys(CARS, (0, 0))))
    sizes.save()
    assert not (tmp_path / extents.FILE).exists()


def test_views_of_a_listed_car_are_late_and_it_keeps_its_extent(tmp_path: Path) -> None:
    folder = str(tmp_path)
    known = extents.add(folder, {"a": (3, 4)})
    sizes = CarSizes(folder, {**CARS, "c1": "c"}, known)
    extents.add(folder, {"b": (1, 1), "c": (7, 7)})  # another command, meanwhile
    sizes.add(results({"a1": (9, 9), "a2": (1, 1), "b1": (2, 2), "b2": (2, 2), "c1": (7, 7)}))
    sizes.save()
    assert sizes.known == extents.load(folder) == {"a": (3, 4), "b": (1, 1), "c": (7, 7)}
    assert sizes.late() == ["a1", "a2", "b1", "b2"], "c has the same extent for both"


def test_cars_are_listed_all_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    add = extents.add
    monkeypatch.setattr(car_sizes.extents, "add", lambda *new: writes.append(new) or add(*new))
    cars = {f"{car}_{view}": str(car) for car in range(3 * CARS_AT_ONCE) for view in range(4)}
    sizes = CarSizes(str(tmp_path), cars, {})
    order = mix_cars([FileInfo(name, 1, "1") for name in cars], cars)
    for entry in order:
        sizes.add(results({entry.name: (1, 1)}))
    assert [len(new) for _, new in writes] == [CARS_AT_ONCE] * 3


def test_views_are_mixed_but_not_those_of_all_cars() -> None:
    cars = {f"{car}_{view}": str(car) for car in range(100) for view in range(4)}
    views = [FileInfo(name, 1, "1") for name in cars]
    mixed = mix_cars(views, cars)
    assert sorted(mixed) == sorted(views)
    first = {cars[view.name] for view in mixed[: 4 * CARS_AT_ONCE]}
    assert len(first) == CARS_AT_ONCE
    assert len({cars[view.name] for view in mixed[:16]}) > 4
