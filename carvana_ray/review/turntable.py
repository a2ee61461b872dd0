"""A car on a turntable: is the silhouette of a view what its other views let expect?

That expectation is a Gaussian process over the angle, for each of some features. A car is about
symmetric: its silhouettes from the left and from the right are mirror images, so a feature is a sum
of cosines of the angle (or of sines, if mirroring turns its sign, as a place left or right does)
and of little else. What the other views say of one then follows from the inverse of the covariance
(Rasmussen and Williams 2006, equation 5.12). Nothing is learned from the catalogue: the first car
of a studio is judged as the thousandth.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.data import layout as carvana
from carvana_ray.review.shape import MaskShape

Floats = NDArray[np.float64]

FEWEST_VIEWS = 8  # to compare one with the others
# Of the scores of 16 views, the one in the middle: 1.7 for real masks. Where it is far more the
# views are not those of a turntable, and the comparison counts that much less.
USUAL = 1.7
OUTLIER_SCORE = 5.0  # score from which a view is not believed when others are judged
PASSES = 4  # over the views of a car, the worst one left out each time
END_ON = 12  # power of the cosine: by 22.5 degrees to the side a third is left
LEFT_OUT = 1e6  # standard deviation that is added to a view which is not to be believed


@dataclass(frozen=True)
class Feature:
    """One number of a silhouette over the angle: what is usual, found by maximum likelihood over
    96 real cars. Standard deviations in units of a feature (see `_features`).

    Attributes:
        odd: mirroring turns its sign, so that sines are its own waves, not cosines.
        constant: of its constant.
        own, fall: of its own waves: ``own / k ** fall`` of k waves a turn.
        other, other_fall: of the waves that a symmetric car does not have.
        noise: of each view by itself.
        end_on: more of it where the car is seen end on. There a turn by one degree more or less
            moves a silhouette most.
        words: what it says when it is more, and when it is less; ``{}`` is by how much.
    """

    odd: bool
    constant: float
    own: float
    fall: float
    other: float
    other_fall: float
    noise: float
    end_on: float
    words: tuple[str, str]


FEATURES = {
    "area": Feature(False, 1e4, 200, 2, 10, 2, 1, 15, ("{} larger", "{} smaller")),
    "x": Feature(True, 100, 400, 1.5, 50, 2, 2, 15, ("{} further right", "{} further left")),
    "y": Feature(False, 1e4, 400, 3, 10, 2, 1, 8, ("{} lower", "{} higher")),
    "top": Feature(False, 1e4, 50, 3, 5, 2, 1, 0, ("top edge {} lower", "top edge {} higher")),
    "bottom": Feature(
        False, 1e4, 200, 1.5, 10, 1, 2, 0, ("bottom edge {} lower", "bottom edge {} higher")
    ),
    "width": Feature(False, 1e4, 400, 2, 10, 1, 1, 15, ("{} wider", "{} narrower")),
    "height": Feature(False, 1e4, 400, 3, 10, 2, 1, 1, ("{} taller", "{} flatter")),
    "lean": Feature(True, 100, 200, 2, 20, 2, 1, 4, ("",) * 2),
}
NAMES = list(FEATURES)
_RATIOS = ("area", "width", "height")


def _features(one: MaskShape) -> Floats:
    """Return the features of a mask, in pixels of a picture 1918 wide; a logarithm or a lean of 1
    counts as 192 of them."""
    scale, unit = carvana.WIDTH / one.width, carvana.WIDTH / 10
    return np.array(
        [
            unit * np.log(one.area / (one.height * one.width)),
            scale * (one.center_x - one.width / 2),
            scale * one.center_y,
            scale * one.first_y,
            scale * one.last_y,
            unit * np.log(one.spread_x / one.width),
            unit * np.log(one.spread_y / one.height),
            unit * one.xy_correlation,
        ]
    )


def _covariances(views: tuple[int, ...], left_out: frozenset[int]) -> Floats:
    """Return the covariance of each feature over some views, [features, n, n].

    Args:
        views: from 1.
        left_out: those of them that are not to be believed.
    """
    angle = 2 * np.pi * (np.array(views) - 1) / carvana.VIEWS
    waves = np.arange(carvana.VIEWS // 2 + 1)
    cosines, sines = np.cos(np.outer(waves, angle)), np.sin(np.outer(waves, angle))
    # So many standard deviations of a wave's amplitude make one of its values over all views.
    norm = np.where((waves == 0) | (waves == waves[-1]), carvana.VIEWS, carvana.VIEWS / 2)
    k = np.maximum(waves, 1)
    unknown = np.array([LEFT_OUT if view in left_out else 0.0 for view in views])
    covariances = []
    for one in FEATURES.values():
        own, other = one.own / k**one.fall, one.other / k**one.other_fall
        even, uneven = (other, own) if one.odd else (own, other)
        even = np.where(waves == 0, one.constant, even)
        total = (cosines.T * (even**2 / norm)) @ cosines
        total += (sines.T * (uneven**2 / norm)) @ sines
        blur = one.end_on * np.cos(angle) ** END_ON
        covariances.append(total + np.diag(one.noise**2 + blur**2 + unknown**2))
    return np.array(covariances)


@functools.lru_cache(maxsize=1024)  # most cars have all views, and none to be left out
def _inverses(views: tuple[int, ...], left_out: frozenset[int]) -> Floats:
    return np.asarray(np.linalg.inv(_covariances(views, left_out)), dtype=np.float64)


def _off(values: Floats, views: tuple[int, ...], left_out: frozenset[int]) -> tuple[Floats, Floats]:
    """Return (difference, score) [features, n]: of each view from what the others let expect, and
    that by its standard deviation.

    Args:
        values: features, [features, n].
        views, left_out: see `_covariances`.
    """
    inverse = _inverses(views, left_out)
    own = np.diagonal(inverse, axis1=1, axis2=2)
    pulled = (inverse @ values[..., None])[..., 0]
    return pulled / own, np.abs(pulled) / np.sqrt(own)


def score_views(car: Mapping[int, MaskShape]) -> dict[int, list[tuple[float, str]]]:
    """Return for each view what is odd about it next to the other views: (score, words) of the
    feature that is most so, and of all from `ODD` on.

    The worst one is left out when the others are judged, and so on: else what is wrong with it
    would show in them.

    Args:
        car: facts by view, 1 to 16; views without a mask and missing ones are left out. Of fewer
            than `FEWEST_VIEWS` nothing is said.
    """
    views = tuple(view for view in sorted(car) if car[view].area)
    if len(views) < FEWEST_VIEWS:
        return {}
    values = np.array([_features(car[view]) for view in views]).T
    left_out: frozenset[int] = frozenset()
    final = np.zeros_like(values), np.zeros_like(values)
    open_ones = list(range(len(views)))
    for number in range(PASSES):
        found_now = _off(values, views, left_out)
        worst = max(open_ones, key=lambda place: found_now[1][:, place].max())
        last = number == PASSES - 1 or found_now[1][:, worst].max() < OUTLIER_SCORE
        judged = open_ones if last else [worst]
        for kept, now in zip(final, found_now, strict=True):
            kept[:, judged] = now[:, judged]
        if last:
            break
        open_ones.remove(worst)
        left_out |= {views[worst]}
    difference, score = final
    usual = max(float(np.median(score.max(0))) / USUAL, 1.0)
    found = {}
    for place, (view, scores) in enumerate(zip(views, (score / usual).T, strict=True)):
        told = np.flatnonzero((scores >= OUTLIER_SCORE) | (scores == scores.max()))
        found[view] = [
            (float(scores[one]), _words(NAMES[one], difference[one, place], car[view]))
            for one in told.tolist()
        ]
    return found


def _words(name: str, difference: float, one: MaskShape) -> str:
    """Return how a feature is off, as a person would say it."""
    if name == "lean":
        side = "right" if difference > 0 else "left"
        return f"lies lower on the {side} than its other views let expect"
    if name in _RATIOS:
        amount = f"{abs(np.expm1(difference / (carvana.WIDTH / 10))):.0%}"
    else:
        amount = f"{abs(difference) * one.width / carvana.WIDTH:.0f} pixels"
    text = FEATURES[name].words[0 if difference > 0 else 1].format(amount)
    return f"{text} than its other views let expect"
