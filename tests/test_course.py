"""A training run's name and its summary; what it is made of is in test_input."""

import pytest

from carvana_ray import course


def row(epoch: int, val_dice: float, images: int = 100, rate: float = 50.0) -> dict[str, float]:
    return {
        "epoch": epoch,
        "val_dice": val_dice,
        "images": images,
        "images_per_second": rate,
        "data_wait_fraction": 0.5 / epoch,
    }


def test_the_best_epoch_is_kept_and_of_equals_the_last() -> None:
    assert course.best_row([row(1, 0.5), row(2, 0.7), row(3, 0.6)])["epoch"] == 2
    assert course.best_row([row(1, 0.5), row(2, 0.5), row(3, 0.4)])["epoch"] == 2


def test_without_validation_the_last_epoch_is_kept() -> None:
    rows = [{"epoch": 1.0, "dice": 0.9}, {"epoch": 2.0, "dice": 0.8}]
    assert course.best_row(rows)["epoch"] == 2


def test_rates_are_means_over_time_not_over_epochs() -> None:
    found = course.summary([row(1, 0.1, 100, 100.0), row(2, 0.2, 100, 25.0)])
    assert found["images"] == 200
    assert found["images_per_second"] == 40.0  # 200 in 1 + 4 seconds
    assert found["data_wait_fraction"] == pytest.approx((0.5 * 1 + 0.25 * 4) / 5)
    assert found["val_dice"] == 0.2
