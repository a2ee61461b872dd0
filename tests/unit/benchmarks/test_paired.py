"""Differences paired by car, their errors, and what is decided by them."""

import numpy as np
import paired
import pytest


def row(candidate: str, fold: int, seed: int, by_car: dict[str, float], epochs: int = 20) -> dict:
    return {
        "candidate": candidate,
        "epochs": epochs,
        "fold": fold,
        "seed": seed,
        "by_car": by_car,
        "lowest": min(by_car.values()) - 0.1,
        "images_seen": 960 * epochs,
        "train_seconds": 10.0 + seed,
        "images_per_second": 100.0,
        "device": "a card",
    }


def rows_of(candidate: str, gains: list[float], seed: int = 0, epochs: int = 20) -> list[dict]:
    """Two folds of two cars, whose Dice differ widely, better by the gains."""
    dice = np.array([0.91, 0.99, 0.95, 0.97]) + gains
    return [
        row(
            candidate,
            fold,
            seed,
            {f"car{2 * fold + at}": dice[2 * fold + at] for at in (0, 1)},
            epochs,
        )
        for fold in (0, 1)
    ]


def test_a_steady_gain_is_decided_though_cars_differ_more() -> None:
    base, better = rows_of("base", [0, 0, 0, 0]), rows_of("new", [0.0010, 0.0012, 0.0008, 0.0010])
    found = paired.compare(better, base)
    assert found["difference"] == pytest.approx(0.0010)
    assert found["error_by_car"] == pytest.approx(np.std([10, 12, 8, 10], ddof=1) / 2 * 1e-4)
    assert found["error_by_training"] == pytest.approx(1e-4)  # of the means 0.0011 and 0.0009
    assert found["verdict"] == "better"
    assert paired.compare(base, better)["verdict"] == "worse"


@pytest.mark.parametrize(
    "gains",
    [
        [0.00029, 0.00029, 0.00029, 0.00028],  # steady and too small
        [0.004, 0.0, 0.0, 0.0],  # large, but less than two standard errors
        [0.003, -0.001, 0.0012, 0.0008],  # trainings agree, cars do not
        [0.003, 0.003, 0.0008, 0.0008],  # cars agree within a training, trainings do not
    ],
)
def test_small_and_unsteady_gains_are_not_decided(gains: list[float]) -> None:
    found = paired.compare(rows_of("new", gains), rows_of("base", [0, 0, 0, 0]))
    assert found["verdict"] == "not decided"


def test_only_trainings_of_both_count() -> None:
    base = rows_of("base", [0, 0, 0, 0], seed=0) + rows_of("base", [0.1, 0.1, 0.1, 0.1], seed=1)
    new = rows_of("new", [0.01, 0.01, 0.01, 0.01], seed=0)[:1]
    new += rows_of("new", [9, 9, 9, 9], seed=2)
    found = paired.compare(new, base)
    assert found["difference"] == pytest.approx(0.01)
    assert found["differences_by_seed"] == [pytest.approx(0.01)]
    assert found["error_by_training"] is None
    assert found["verdict"] == "better, one training"
    assert paired.compare(rows_of("new", [0, 0, 0, 0], seed=5), base) == {
        "verdict": "no trainings in common"
    }


def test_the_error_is_that_over_cars_of_means_over_seeds() -> None:
    base = rows_of("base", [0, 0, 0, 0], seed=0) + rows_of("base", [0, 0, 0, 0], seed=1)
    new = rows_of("new", [0.01, 0.03, 0.01, 0.03], seed=0)
    new += rows_of("new", [0.03, 0.01, 0.03, 0.01], seed=1)
    found = paired.compare(new, base)
    assert found["difference"] == pytest.approx(0.02)
    assert found["error_by_car"] == pytest.approx(0, abs=1e-12)
    assert found["differences_by_seed"] == pytest.approx([0.02, 0.02])


def test_each_number_of_epochs_has_its_own_base() -> None:
    rows = rows_of("base", [0, 0, 0, 0]) + rows_of("base", [0.5, 0.5, 0.5, 0.5], epochs=60)
    rows += rows_of("new", [0.6, 0.6, 0.6, 0.6], epochs=60)
    rows += rows_of("long", [0.1, 0.1, 0.1, 0.1], epochs=90)
    found = {(one["candidate"], one["epochs"]): one for one in paired.compare_all(rows)}
    assert found["new", 60]["difference"] == pytest.approx(0.1)
    assert found["new", 60]["verdict"] == "better"
    assert found["base", 20]["verdict"] == "base"
    assert found["base", 60]["difference"] == pytest.approx(0.5)
    assert found["base", 60]["verdict"] == "better, unequal budgets"
    assert found["long", 90]["difference"] == pytest.approx(0.1)
    assert found["long", 90]["verdict"] == "better, unequal budgets"


def test_a_named_base_need_not_be_first() -> None:
    rows = rows_of("new", [0.1, 0.1, 0.1, 0.1]) + rows_of("base", [0, 0, 0, 0])
    assert [one["verdict"] for one in paired.compare_all(rows, "base")] == ["better", "base"]
    with pytest.raises(SystemExit, match="other: no training"):
        paired.compare_all(rows, "other")


def test_of_equal_trainings_the_last_counts_and_means_are_over_cars() -> None:
    rows = rows_of("base", [0.5, 0.5, 0.5, 0.5]) + rows_of("base", [0, 0, 0, 0])
    rows += rows_of("base", [0.01, 0.01, 0.01, 0.01], seed=1)
    (found,) = paired.compare_all(rows)
    assert found["dice"] == pytest.approx(0.955 + 0.005)
    assert found["dice_by_seed"] == pytest.approx([0.955, 0.965])
    assert (found["cars"], found["folds"], found["seeds"]) == (4, [0, 1], [0, 1])
    assert found["lowest"] == pytest.approx(0.81)
    assert found["images_seen"] == 19_200


def test_the_table_has_budgets_and_differences() -> None:
    rows = rows_of("base", [0, 0, 0, 0]) + rows_of("new", [0.0010, 0.0012, 0.0008, 0.0010])
    table = paired.comparison_table(paired.compare_all(rows))
    assert "| new | 20, 19,200 | 2, 1 | 0.95600 | 0.95600 |" in table
    assert "| +0.00100 ± 0.00008, 0.00010 | better | 10.0 | 100 | a card |" in table
