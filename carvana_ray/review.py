"""Which masks should a person look at first? Says it without a truth to compare with, and why.

Each picture gets a score: how far it is from what is usual, in standard deviations, the worst of
its signals. A mask alone can have pieces, holes, a ragged outline. Where a car was photographed on
a turntable in 16 views, each view is also compared with what the other views let expect.

That expectation is a Gaussian process over the angle, for each of some features. A car is about
symmetric: its silhouettes from the left and from the right are mirror images, so a feature is a sum
of cosines of the angle (or of sines, if mirroring turns its sign, as a place left or right does)
and of little else. What the other views say of one then follows from the inverse of the covariance
(Rasmussen and Williams 2006, equation 5.12). Nothing is learned from the catalogue: the first car
of a studio is judged as the thousandth.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray import carvana
from carvana_ray.silhouette import Facts

Floats = NDArray[np.float64]

LISTED = 5.0  # score from which a picture is listed; of 1,536 real masks 2 % have as much
EMPTY = 100.0
FEWEST_VIEWS = 8  # that are there, to compare one with the others
# Of the scores of 16 views, the one in the middle: 1.7 for real masks. Where it is far more the
# views are not those of a turntable, and the comparison counts that much less.
USUAL = 1.7
PASSES = 4  # over the views of a car, the worst one left out each time
END_ON = 12  # power of the cosine: by 22.5 degrees to the side a third is left
LEFT_OUT = 1e6  # standard deviation that is added to a view which is not to be believed

# What is usual of one mask: 99 % of 1,536 real ones have less than three times that (stray pieces
# and the largest hole as shares of the mask; the outline above that of a plain shape).
STRAY, HOLLOW, OUTLINE, PLAIN = 0.0005, 0.002, 0.1, 1.1
SMALLEST_SPREAD = 0.05  # of the logarithm of areas in a catalogue


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
_RATIOS = ("area", "width", "height")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a picture.

    Attributes:
        name: of the picture.
        score: how unusual its mask is, in standard deviations; 0 or more.
        reasons: in words, the strongest first: those from `LISTED` on, or else the strongest one.
    """

    name: str
    score: float
    reasons: tuple[str, ...]

    @property
    def listed(self) -> bool:
        """Whether a person should look at it."""
        return self.score >= LISTED


def ranked(facts: Mapping[str, Facts]) -> list[Verdict]:
    """Return a verdict on each picture, the most unusual first.

    Args:
        facts: of its mask, by the picture's name.
    """
    signals = {name: _alone(one) for name, one in facts.items()}
    by_car: dict[str, dict[int, str]] = {}
    for name in facts:
        car, view = carvana.car_and_view(name)
        by_car.setdefault(car, {})[view] = name
    compared = set()
    for views in by_car.values():
        names = [views[view] for view in sorted(views) if 1 <= view <= carvana.VIEWS]
        there = [facts[name].area > 0 for name in names]
        if sum(there) >= FEWEST_VIEWS and set(views) <= set(range(1, carvana.VIEWS + 1)):
            for name, found in zip(names, _against_others(names, facts), strict=True):
                signals[name] += found
            compared.update(names)
    rest = {name: one for name, one in facts.items() if name not in compared}
    for name, signal in _against_all(rest):
        signals[name].append(signal)
    verdicts = [_verdict(name, found) for name, found in signals.items()]
    return sorted(verdicts, key=lambda one: (-one.score, one.name))


def to_csv(verdicts: Sequence[Verdict], facts: Mapping[str, Facts]) -> bytes:
    """Return ``review.csv``: a line a picture, in the order of the verdicts."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["img", "score", "look", "reasons", "area", "pieces", "holes", "outline"])
    for one in verdicts:
        found = facts[one.name]
        said = one.name, f"{one.score:.2f}", int(one.listed), "; ".join(one.reasons)
        table.writerow([*said, found.area, found.pieces, found.holes, f"{found.outline:.3f}"])
    return text.getvalue().encode()


def _verdict(name: str, signals: list[tuple[float, str]]) -> Verdict:
    signals = sorted(signals, reverse=True)
    said = [text for score, text in signals if score >= LISTED]
    strongest = signals[0][1] if signals[0][0] > 0 else "nothing"
    return Verdict(name, round(signals[0][0], 2), tuple(said or [strongest]))


def _alone(one: Facts) -> list[tuple[float, str]]:
    """Return (score, words) of each signal of a mask by itself."""
    if not one.area:
        return [(EMPTY, "the mask is empty")]
    stray, hollow = one.stray / one.area, one.hollow / one.area
    others = one.pieces - 1
    return [
        (
            min(stray / STRAY, EMPTY),
            f"{others} {'pieces' if others > 1 else 'piece'} beside the largest, {stray:.1%} of it",
        ),
        (min(hollow / HOLLOW, EMPTY), f"a hole of {hollow:.1%} of the mask, {one.holes} in all"),
        (
            min(max(one.outline - PLAIN, 0) / OUTLINE, EMPTY),
            f"a ragged outline, {one.outline:.1f} times as long as that of its box",
        ),
    ]


def _against_all(facts: Mapping[str, Facts]) -> list[tuple[str, tuple[float, str]]]:
    """Return (name, (score, words)) of the areas of pictures, compared with those of all of them.

    For pictures that are not among the views of a car.
    """
    names = [name for name, one in facts.items() if one.area]
    if len(names) < FEWEST_VIEWS:
        return []
    share = np.array([facts[n].area / (facts[n].height * facts[n].width) for n in names])
    middle = float(np.median(share))
    off = np.log(share / middle)
    spread = max(1.4826 * float(np.median(np.abs(off))), SMALLEST_SPREAD)
    return [
        (
            name,
            (
                abs(float(one)) / spread,
                f"covers {part:.1%} of the picture, the catalogue's middle one {middle:.1%}",
            ),
        )
        for name, one, part in zip(names, off, share, strict=True)
    ]


def _features(one: Facts) -> Floats:
    """Return the features of a mask, in pixels of a picture 1918 wide; a logarithm or a lean of 1
    counts as 192 of them."""
    scale, unit = carvana.WIDTH / one.width, carvana.WIDTH / 10
    return np.array(
        [
            unit * np.log(one.area / (one.height * one.width)),
            scale * (one.x - one.width / 2),
            scale * one.y,
            scale * one.first_y,
            scale * one.last_y,
            unit * np.log(one.spread_x / one.width),
            unit * np.log(one.spread_y / one.height),
            unit * one.lean,
        ]
    )


def _covariances(views: NDArray[np.int64], odd_ones: Floats) -> Floats:
    """Return the covariance of each feature over some views, [features, n, n].

    Args:
        views: from 1.
        odd_ones: standard deviation of what is added to each view, [n], 0 for a usual one.
    """
    angle = 2 * np.pi * (views - 1) / carvana.VIEWS
    waves = np.arange(carvana.VIEWS // 2 + 1)
    cosines, sines = np.cos(np.outer(waves, angle)), np.sin(np.outer(waves, angle))
    # So many standard deviations of a wave's amplitude make one of its values over all views.
    norm = np.where((waves == 0) | (waves == waves[-1]), carvana.VIEWS, carvana.VIEWS / 2)
    k = np.maximum(waves, 1)
    covariances = []
    for one in FEATURES.values():
        own, other = one.own / k**one.fall, one.other / k**one.other_fall
        even, uneven = (other, own) if one.odd else (own, other)
        even = np.where(waves == 0, one.constant, even)
        total = (cosines.T * (even**2 / norm)) @ cosines
        total += (sines.T * (uneven**2 / norm)) @ sines
        blur = one.end_on * np.cos(angle) ** END_ON
        covariances.append(total + np.diag(one.noise**2 + blur**2 + odd_ones**2))
    return np.array(covariances)


def _off(values: Floats, views: NDArray[np.int64], odd_ones: Floats) -> tuple[Floats, Floats]:
    """Return (difference, score) [features, n]: of each view from what the others let expect, and
    that by its standard deviation.

    Args:
        values: features, [features, n].
        views, odd_ones: see `_covariances`.
    """
    inverse = np.linalg.inv(_covariances(views, odd_ones))
    own = np.diagonal(inverse, axis1=1, axis2=2)
    pulled = (inverse @ values[..., None])[..., 0]
    return pulled / own, np.abs(pulled) / np.sqrt(own)


def _against_others(names: Sequence[str], facts: Mapping[str, Facts]) -> list[list]:
    """Return the (score, words) of each view of a car, compared with the other views.

    The worst one is left out when the others are judged, and so on: else what is wrong with it
    would show in them.
    """
    found: list[list[tuple[float, str]]] = [[] for _ in names]
    there = [place for place, name in enumerate(names) if facts[name].area]
    views = np.array([carvana.car_and_view(names[place])[1] for place in there])
    values = np.array([_features(facts[names[place]]) for place in there]).T
    odd_ones = np.zeros(len(there))
    final = np.zeros_like(values), np.zeros_like(values)
    open_ones = list(range(len(there)))
    for number in range(PASSES):
        found_now = _off(values, views, odd_ones)
        worst = max(open_ones, key=lambda place: found_now[1][:, place].max())
        last = number == PASSES - 1 or found_now[1][:, worst].max() < LISTED
        judged = open_ones if last else [worst]
        for kept, now in zip(final, found_now, strict=True):
            kept[:, judged] = now[:, judged]
        if last:
            break
        open_ones.remove(worst)
        odd_ones[worst] = LEFT_OUT
    difference, score = final
    usual = max(float(np.median(score.max(0))) / USUAL, 1.0)
    for place, name in enumerate(names[one] for one in there):
        pairs = zip(FEATURES, difference[:, place], score[:, place] / usual, strict=True)
        found[there[place]] = [(float(s), _words(f, d, facts[name])) for f, d, s in pairs]
    return found


def _words(name: str, difference: float, one: Facts) -> str:
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
