"""The split by car: a function of the seed and the set of cars that never divides a car."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray.data import split
from carvana_ray.data.cars import KAGGLE
from carvana_ray.errors import InputError

CARS = [f"{number:012x}" for number in range(40)]


@pytest.mark.parametrize(
    ("text", "total", "count"),
    [
        ("0", 10, 0),
        ("7", 10, 7),
        ("10", 10, 10),
        ("0.15", 100, 15),
        ("0.15", 318, 48),
        (".5", 10, 5),
        ("0.0", 10, 0),
        ("0.99", 10, 10),
    ],
)
def test_a_text_is_a_count_or_a_fraction(text: str, total: int, count: int) -> None:
    assert split.resolve_count(text, total, "--x") == count


@pytest.mark.parametrize(
    "text", ["", "ten", "11", "-1", "1.0", "1.5", "-0.1", "-0.01", "nan", "inf", "1e400", "0.1.2"]
)
def test_an_invalid_text_names_its_flag(text: str) -> None:
    with pytest.raises(InputError, match=r"^--holdout-cars "):
        split.resolve_count(text, 10, "--holdout-cars")


@settings(deadline=None, max_examples=100)
@given(
    cars=st.sets(st.text("abc0", min_size=1, max_size=4), min_size=3, max_size=30),
    holdout=st.sampled_from(["0", "1", "0.15", "0.3"]),
    val=st.sampled_from(["0", "1", "0.1", "0.3"]),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_a_split_is_a_partition_that_the_order_of_the_cars_does_not_change(
    cars: set[str], holdout: str, val: str, seed: int, shuffle: random.Random
) -> None:
    order = sorted(cars)
    parts = split.split_cars(order, holdout, val, seed)
    shuffle.shuffle(order)
    assert split.split_cars(order, holdout, val, seed) == parts
    assert sorted(car for part in parts for car in part) == sorted(cars)
    assert all(part == sorted(part) for part in parts)
    assert parts[0]


def test_all_views_of_a_car_stay_together() -> None:
    names = [f"{car}_{view:02d}.jpg" for car in CARS for view in range(1, 17)]
    train, val, held = split.split_cars(KAGGLE.unique(names), "0.15", "0.1", 0)
    for part in (train, val, held):
        own = [name for name in names if KAGGLE.car_of(name) in part]
        assert len(own) == 16 * len(part)
    assert not set(train) & set(val)
    assert not set(train) & set(held)
    assert not set(val) & set(held)


def test_counts_and_fractions_mean_what_they_say() -> None:
    assert [len(part) for part in split.split_cars(CARS, "0.15", "0.1", 0)] == [31, 3, 6]
    assert [len(part) for part in split.split_cars(CARS, "6", "3", 0)] == [31, 3, 6]
    assert [len(part) for part in split.split_cars(CARS, "0", "0", 0)] == [40, 0, 0]
    assert [len(part) for part in split.split_cars(CARS, "39", "0", 0)] == [1, 0, 39]


def test_a_fraction_and_its_count_draw_the_same_cars() -> None:
    assert split.split_cars(CARS, "0.15", "0.1", 5) == split.split_cars(CARS, "6", "3", 5)


def test_a_count_above_the_number_of_cars_is_an_error_that_names_its_flag() -> None:
    with pytest.raises(InputError, match=r"^--holdout-cars 41"):
        split.split_cars(CARS, "41", "0", 0)
    with pytest.raises(InputError, match=r"^--val-cars 5"):
        split.split_cars(CARS[:6], "2", "5", 0)


@pytest.mark.parametrize(
    ("holdout", "val"), [("40", "0"), ("0", "40"), ("20", "20"), ("39", "0.1")]
)
def test_a_split_that_leaves_nothing_to_train_on_is_an_error(holdout: str, val: str) -> None:
    with pytest.raises(InputError, match="no car to train on"):
        split.split_cars(CARS, holdout, val, 0)


def test_a_split_of_no_cars_is_an_error() -> None:
    with pytest.raises(InputError, match="no car to train on"):
        split.split_cars([], "0", "0", 0)


def test_a_fraction_of_few_cars_still_gives_one_for_validation() -> None:
    train, val, held = split.split_cars(CARS[:3], "0", "0.1", 0)
    assert (len(train), len(val), len(held)) == (2, 1, 0)


def test_another_seed_gives_another_split() -> None:
    parts = [split.split_cars(CARS, "0.15", "0.1", seed) for seed in range(5)]
    assert len({str(part) for part in parts}) == 5


def test_the_split_of_seed_0_is_the_same_on_every_machine_and_day() -> None:
    # Fixed values: a new release must not move cars between training and scoring.
    assert split.split_cars(CARS[:10], "2", "2", 0)[1:] == (
        ["000000000001", "000000000005"],
        ["000000000007", "000000000008"],
    )


def test_only_the_named_cars_are_held_out() -> None:
    names = [CARS[7], CARS[3]]
    for seed in range(3):
        train, val, held = split.split_cars(CARS, names, "4", seed)
        assert held == sorted(names)
        assert len(train) == 34
        assert len(val) == 4
        assert not set(names) & {*train, *val}


def test_a_car_that_is_named_twice_is_held_out_once() -> None:
    assert split.split_cars(CARS, [CARS[3], CARS[3]], "0", 0)[2] == [CARS[3]]


def test_a_held_out_car_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match=r"^--holdout-cars names stranger"):
        split.split_cars(CARS, [CARS[0], "stranger"], "0", 0)
