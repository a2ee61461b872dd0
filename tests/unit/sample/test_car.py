"""Random cars: frozen, reproducible, of all styles, with a row of metadata."""

from dataclasses import FrozenInstanceError

import pytest
from support.drawn_car import SEED, rng

from carvana_ray import sample


def test_the_same_seed_draws_the_same_car(car: sample.Car) -> None:
    assert sample.draw_car(rng(SEED)) == car
    assert sample.draw_car(rng(SEED + 1)) != car


def test_a_car_is_frozen(car: sample.Car) -> None:
    with pytest.raises(FrozenInstanceError):
        car.length_m = 1.0  # type: ignore[misc]


def test_seeds_draw_every_style_and_common_colors() -> None:
    cars = [sample.draw_car(rng(seed)) for seed in range(200)]
    assert len({car.style for car in cars}) == 6
    light = sum(car.paint_name in ("white", "silver") for car in cars) / len(cars)
    assert 0.25 < light < 0.55
    assert 0.3 < sum(car.antenna == "mast" for car in cars) / len(cars) < 0.8
    assert all(3.5 < car.length_m < 6.0 and 1.3 < car.height_m < 2.0 for car in cars)


def test_a_car_has_the_columns_of_the_metadata(car: sample.Car) -> None:
    row = sample.make_and_model(car)
    assert list(row) == ["year", "make", "model", "trim1", "trim2"]
    assert all(isinstance(value, str) for value in row.values())
    assert 2000 < int(row["year"]) < 2020
    assert row == sample.make_and_model(sample.draw_car(rng(SEED)))
