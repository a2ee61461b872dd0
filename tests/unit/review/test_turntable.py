"""Views of a car against each other: the formula, and which views are compared at all."""

import dataclasses

import numpy as np
import pytest

from carvana_ray.review import turntable
from carvana_ray.review.shape import MaskShape

SHAPE = MaskShape(
    1280,
    1918,
    area=500_000,
    center_x=960.0,
    center_y=700.0,
    first_y=400.0,
    last_y=1000.0,
    spread_x=300.0,
    spread_y=150.0,
)
CAR = dict.fromkeys(range(1, 17), SHAPE)


@pytest.mark.parametrize("views", [tuple(range(1, 17)), (1, 2, 4, 7, 8, 11, 15, 16)])
def test_a_view_is_predicted_by_conditioning_on_the_others(views: tuple[int, ...]) -> None:
    """Against the textbook's conditional distribution, with one view left out at a time."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 50, (len(turntable.NAMES), len(views)))
    covariances = turntable._covariances(views, frozenset())
    difference, score = turntable._leave_one_out(values, views, frozenset())
    for feature, covariance in enumerate(covariances):
        for index in range(len(views)):
            others = np.arange(len(views)) != index
            weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, index])
            mean = weights @ values[feature, others]
            variance = covariance[index, index] - weights @ covariance[others, index]
            assert difference[feature, index] == pytest.approx(values[feature, index] - mean, 1e-4)
            expected = abs(values[feature, index] - mean) / np.sqrt(variance)
            assert score[feature, index] == pytest.approx(expected, 1e-4)


def test_an_excluded_view_does_not_change_the_scores_of_the_others() -> None:
    views = tuple(range(1, 17))
    values = np.random.default_rng(1).normal(0, 20, (len(turntable.NAMES), 16))
    changed = values.copy()
    changed[:, 4] += 500
    _, before = turntable._leave_one_out(values, views, frozenset({5}))
    _, after = turntable._leave_one_out(changed, views, frozenset({5}))
    others = np.arange(16) != 4
    assert np.allclose(before[:, others], after[:, others], atol=1e-3)


def test_too_few_views_are_not_compared() -> None:
    few = {view: CAR[view] for view in range(1, turntable.MIN_VIEWS)}
    assert turntable.score_views(few) == {}
    empty = MaskShape(1280, 1918)
    assert turntable.score_views(few | {8: empty, 9: empty}) == {}
    assert set(turntable.score_views(few | {8: SHAPE, 9: empty})) == set(range(1, 9))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"first_y": 460.0}, "top edge is 60 px lower"),
        ({"first_y": 340.0}, "top edge is 60 px higher"),
        ({"last_y": 1100.0}, "bottom edge is 100 px lower"),
        ({"area": 750_000}, "50% larger"),
        ({"spread_x": 150.0}, "50% narrower"),
        ({"xy_correlation": 0.8}, "right side is lower"),
        ({"xy_correlation": -0.8}, "left side is lower"),
    ],
)
def test_a_view_that_differs_has_the_reason(change: dict, text: str) -> None:
    signals = turntable.score_views(CAR | {6: dataclasses.replace(SHAPE, **change)})
    score, reason = max(signals[6])
    assert score >= turntable.OUTLIER_SCORE
    assert reason.endswith(" than the car's other views suggest")
    words, expected = reason.split(), text.split()
    numbers = [index for index, word in enumerate(expected) if word[0].isdigit()]
    assert [w for i, w in enumerate(words[: len(expected)]) if i not in numbers] == [
        w for i, w in enumerate(expected) if i not in numbers
    ]
    for index in numbers:
        assert float(words[index].strip("%")) == pytest.approx(
            float(expected[index].strip("%")), rel=0.1
        )
