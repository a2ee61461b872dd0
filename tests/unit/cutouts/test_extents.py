"""Extents of cars: the largest width and height over their views, decided once for all commands."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.interleaving import interleave
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.cutouts import extents
from carvana_ray.cutouts.framing import Box, Frame, Size
from carvana_ray.errors import InputError

sizes = st.tuples(st.integers(1, 9000), st.integers(1, 9000))
CATALOGUE = Frame("catalogue", (1600, 1200), 0.05)


@given(st.lists(st.none() | sizes))
def test_an_extent_is_the_least_size_that_all_views_fit_into(views: list[Size | None]) -> None:
    extent, shown = extents.extent_of(views), [size for size in views if size]
    assert (extent is None) == (not shown)
    if extent:
        assert all(width <= extent[0] and height <= extent[1] for width, height in shown)
        assert extent[0] in {width for width, _ in shown}
        assert extent[1] in {height for _, height in shown}


@given(st.lists(sizes, min_size=1))
def test_each_view_fits_between_the_margins_at_the_scale_of_its_car(views: list[Size]) -> None:
    extent = extents.extent_of(views)
    assert extent
    scale = extents.scale_of(CATALOGUE, extent)
    for width, height in views:
        place = CATALOGUE.place(Box(7, 5, 7 + width, 5 + height), extent)
        assert place.scale == scale <= extents.scale_of(CATALOGUE, (width, height))
        assert place.left + scale * 7 >= 80 - 1e-6
        assert place.left + scale * (7 + width) <= 1520 + 1e-6
        assert place.top + scale * 5 >= 80 - 1e-6


def test_cars_are_kept_and_those_that_are_listed_keep_their_extent(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert extents.load(folder) == {}
    assert extents.add(folder, {"monday/é": (4, 2), "a": (3, 3)}) == {
        "monday/é": (4, 2),
        "a": (3, 3),
    }
    before = (tmp_path / extents.FILE).stat().st_mtime_ns
    assert extents.add(folder, {"a": (9, 9)})["a"] == (3, 3)
    assert (tmp_path / extents.FILE).stat().st_mtime_ns == before, "nothing new: not written"
    assert extents.add(folder, {"b": (5, 1)}) == extents.load(folder)
    assert extents.load(folder) == {"a": (3, 3), "b": (5, 1), "monday/é": (4, 2)}


def test_the_list_is_the_same_in_whatever_order_cars_come(tmp_path: Path) -> None:
    for number in range(3):
        cars = [f"{car:02d}" for car in range(20)]
        random.Random(number).shuffle(cars)
        for car in cars:
            extents.add(str(tmp_path / str(number)), {car: (int(car) + 1, 7)})
    assert len({(tmp_path / str(number) / extents.FILE).read_bytes() for number in range(3)}) == 1
    assert (
        (tmp_path / "0" / extents.FILE)
        .read_text()
        .startswith('{"format": 1, "cars": {"00": [1, 7], "01": [2, 7], ')
    )


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format": 2, "cars": {}}', '{"format": 1, "cars": {"a": [1]}}']
    + [f'{{"format": 1, "cars": {{"a": {size}}}}}' for size in ("[0, 1]", '["2", 1]', "3")],
)
def test_a_damaged_list_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / extents.FILE).write_text(text)
    with pytest.raises(InputError, match=r"_cars\.json: damaged .*use another --out"):
        extents.load(str(tmp_path))


def check_interleaving(home: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands list cars of their own, and one that both have measured."""
    answers: dict[str, dict[str, Size]] = {}

    def command(name: str, width: int) -> Callable[[], None]:
        def run() -> None:
            for car in (name, "both", f"{name}2"):
                answers[name] = extents.add(home, {car: (width, 1)})

        return run

    interleave(seed, monkeypatch, first=command("first", 1), second=command("second", 2))
    listed = extents.load(home)
    assert set(listed) == {"first", "first2", "second", "second2", "both"}, "a car is lost"
    for name, answer in answers.items():
        assert answer.items() <= listed.items(), f"{name} has seen another extent"


@pytest.mark.parametrize("seed", range(20))
def test_commands_in_any_order_of_steps_agree_on_disk(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_interleaving(storage.join(str(tmp_path), "out"), seed, monkeypatch)


@pytest.mark.parametrize("seed", range(3))
def test_commands_in_any_order_of_steps_agree_in_s3(
    s3: Server, bucket: Callable[[Server], str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_interleaving(bucket(s3), seed, monkeypatch)
