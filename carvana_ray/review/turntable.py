"""Cars on a turntable: does the mask of a view fit the masks of the car's other views?

Each feature of a mask (area, position, edges, ...) is modeled as a Gaussian process over the angle.
A car is nearly symmetric, so its masks from the left and from the right are mirror images. A
feature is therefore mostly a sum of cosines of the angle, or of sines if mirroring flips its sign,
as for a position in x. The inverse of the covariance predicts one view from the others. Nothing is
fitted to the catalog, so the first car of a studio is judged like the thousandth.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.data.layout import VIEWS, WIDTH
from carvana_ray.review.shape import MaskShape

Floats = NDArray[np.float64]

MIN_VIEWS = 8  # of a car, to compare each with the others
# Median over 16 views of their largest score: 1.7 for real masks. If it is far larger, the images
# are not the views of a turntable, and the scores are scaled down.
USUAL_MEDIAN = 1.7
OUTLIER_SCORE = 5.0  # score from which a view is excluded when others are judged
PASSES = 4  # over the views of a car, excluding the worst view each time
END_ON_POWER = 12  # of the cosine of the angle: at 22.5 degrees a third is left
EXCLUDED_SD = 1e6  # standard deviation added to an excluded view
LOG_UNIT = WIDTH / 10  # pixels that count as much as a logarithm or a correlation of 1


@dataclass(frozen=True)
class Feature:
    """The prior of one feature over the angle, fitted by maximum likelihood to 96 real cars.

    All numbers but the powers are standard deviations in pixels; see `_features`.

    Attributes:
        odd: whether mirroring flips the sign. Then the main waves are sines, else cosines.
        mean: of the mean over all angles.
        main, main_power: the main wave with k periods per turn has ``main / k ** main_power``.
        minor, minor_power: the same for the waves that a symmetric car does not have.
        noise: of each view.
        end_on: of a car seen end on, in addition: turning it by one degree changes its mask most.
        words: for a value that is too large, and for one that is too small; ``{}`` is the amount.
    """

    odd: bool
    mean: float
    main: float
    main_power: float
    minor: float
    minor_power: float
    noise: float
    end_on: float
    words: tuple[str, str]


FEATURES = {
    "area": Feature(False, 1e4, 200, 2, 10, 2, 1, 15, ("{} larger", "{} smaller")),
    "x": Feature(True, 100, 400, 1.5, 50, 2, 2, 15, ("{} further right", "{} further left")),
    "y": Feature(False, 1e4, 400, 3, 10, 2, 1, 8, ("{} lower", "{} higher")),
    "top": Feature(
        False, 1e4, 50, 3, 5, 2, 1, 0, ("top edge is {} lower", "top edge is {} higher")
    ),
    "bottom": Feature(
        False, 1e4, 200, 1.5, 10, 1, 2, 0, ("bottom edge is {} lower", "bottom edge is {} higher")
    ),
    "width": Feature(False, 1e4, 400, 2, 10, 1, 1, 15, ("{} wider", "{} narrower")),
    "height": Feature(False, 1e4, 400, 3, 10, 2, 1, 1, ("{} taller", "{} flatter")),
    "tilt": Feature(True, 100, 200, 2, 20, 2, 1, 4, ("right side is lower", "left side is lower")),
}
NAMES = list(FEATURES)


def score_views(car: Mapping[int, MaskShape]) -> dict[int, list[tuple[float, str]]]:
    """Score each view of a car against its other views.

    Args:
        car: shape of the mask by view, 1..16. Missing views and empty masks are left out. Fewer
            than `MIN_VIEWS` views give no scores.

    Returns:
        For each view, (score in standard deviations, words) of its most unusual feature, and of
        all features from `OUTLIER_SCORE`.
    """
    views = tuple(view for view in sorted(car) if car[view].area)
    if len(views) < MIN_VIEWS:
        return {}
    values = np.array([_features(car[view]) for view in views]).T
    difference, score = _judge(values, views)
    score /= max(float(np.median(score.max(0))) / USUAL_MEDIAN, 1.0)
    unusual = (score >= OUTLIER_SCORE) | (score == score.max(0))
    signals: dict[int, list[tuple[float, str]]] = {view: [] for view in views}
    for column, feature in np.argwhere(unusual.T).tolist():
        view = views[column]
        words = _words(NAMES[feature], difference[feature, column], car[view])
        signals[view].append((float(score[feature, column]), words))
    return signals


def _features(shape: MaskShape) -> Floats:
    """Return the features of a mask, [features], in pixels of an image 1918 wide.

    Sizes are logarithms, so that they do not depend on the size of the car.
    """
    scale = WIDTH / shape.width
    return np.array(
        [
            LOG_UNIT * np.log(shape.area / (shape.height * shape.width)),
            scale * (shape.center_x - shape.width / 2),
            scale * shape.center_y,
            scale * shape.first_y,
            scale * shape.last_y,
            LOG_UNIT * np.log(shape.spread_x / shape.width),
            LOG_UNIT * np.log(shape.spread_y / shape.height),
            LOG_UNIT * shape.xy_correlation,
        ]
    )


def _judge(values: Floats, views: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return (difference, score) of each view from the other views, each [features, n] as `values`.

    An outlier is excluded when the remaining views are judged: its fault would show in their scores
    too.
    """
    difference, score = np.zeros_like(values), np.zeros_like(values)
    excluded: frozenset[int] = frozenset()
    remaining = list(range(len(views)))
    for _ in range(PASSES):
        new_difference, new_score = _leave_one_out(values, views, excluded)
        difference[:, remaining] = new_difference[:, remaining]
        score[:, remaining] = new_score[:, remaining]
        most = score.max(0).tolist()  # of each view; one call for a catalog of thousands of cars
        worst = max(remaining, key=most.__getitem__)
        if most[worst] < OUTLIER_SCORE:
            break
        remaining.remove(worst)
        excluded |= {views[worst]}
    return difference, score


def _leave_one_out(
    values: Floats, views: tuple[int, ...], excluded: frozenset[int]
) -> tuple[Floats, Floats]:
    """Return the difference of each view from its prediction, and that in standard deviations.

    With K the covariance and y the values, the difference is [K^-1 y]_i / [K^-1]_ii, and its
    variance is 1 / [K^-1]_ii (Rasmussen and Williams 2006, equation 5.12).
    """
    inverse = _inverse_covariances(views, excluded)
    precision = np.diagonal(inverse, axis1=1, axis2=2)
    weighted = (inverse @ values[..., None])[..., 0]
    return weighted / precision, np.abs(weighted) / np.sqrt(precision)


@functools.lru_cache(maxsize=1024)  # most cars have all views and no outlier
def _inverse_covariances(views: tuple[int, ...], excluded: frozenset[int]) -> Floats:
    return np.asarray(np.linalg.inv(_covariances(views, excluded)), dtype=np.float64)


def _covariances(views: tuple[int, ...], excluded: frozenset[int]) -> Floats:
    """Return the covariance of each feature over n views, [features, n, n].

    Values of excluded views carry no weight.
    """
    angle = 2 * np.pi * (np.array(views) - 1) / VIEWS
    waves = np.arange(VIEWS // 2 + 1)
    cosines, sines = np.cos(np.outer(waves, angle)), np.sin(np.outer(waves, angle))
    # Sum of squares of a wave over all views: turns the standard deviation of its values into that
    # of its amplitude.
    norm = np.where((waves == 0) | (waves == waves[-1]), VIEWS, VIEWS / 2)
    k = np.maximum(waves, 1)
    excluded_sd = np.array([EXCLUDED_SD if view in excluded else 0.0 for view in views])
    covariances = []
    for feature in FEATURES.values():
        main, minor = feature.main / k**feature.main_power, feature.minor / k**feature.minor_power
        even, odd = (minor, main) if feature.odd else (main, minor)
        even = np.where(waves == 0, feature.mean, even)
        signal = (cosines.T * (even**2 / norm)) @ cosines
        signal += (sines.T * (odd**2 / norm)) @ sines
        end_on = feature.end_on * np.cos(angle) ** END_ON_POWER
        noise = feature.noise**2 + end_on**2 + excluded_sd**2
        covariances.append(signal + np.diag(noise))
    return np.array(covariances)


def _words(name: str, difference: float, shape: MaskShape) -> str:
    if name in ("area", "width", "height"):  # logarithms
        amount = f"{abs(np.expm1(difference / LOG_UNIT)):.0%}"
    else:
        amount = f"{abs(difference) * shape.width / WIDTH:.0f} px"
    text = FEATURES[name].words[0 if difference > 0 else 1].format(amount)
    return f"{text} than the car's other views suggest"
