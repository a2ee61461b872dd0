"""Which masks should a person look at first? Says it without a truth to compare with, and why.

Each picture gets a score: how far it is from what is usual, in standard deviations, the worst of
its signals. A mask alone can have pieces, holes, a ragged outline. Where a car was photographed on
a turntable in 16 views, each view is also compared with what the other views let expect.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carvana_ray.data import layout as carvana
from carvana_ray.review import turntable
from carvana_ray.review.shape import MaskShape

REVIEW_SCORE = 5.0  # score from which a picture is listed; of 1,536 real masks 3 have as much
EMPTY, MOST = 1000.0, 100.0  # score of an empty or a full mask, and of any other at most
FULL = 0.9  # share of the picture from which a mask is full; of 768 real ones 0.40 at most
# What is usual of one mask: 99 % of 1,536 real ones have less than three times that (stray pieces
# and the largest hole as shares of the mask; the outline above that of a plain shape).
STRAY, HOLLOW, OUTLINE, PLAIN = 0.0005, 0.002, 0.1, 1.1
FEWEST = 8  # pictures, to compare their areas
SMALLEST_SPREAD = 0.05  # of the logarithm of areas in a catalogue


@dataclass(frozen=True)
class ReviewItem:
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
        return self.score >= REVIEW_SCORE


def rank(facts: Mapping[str, MaskShape]) -> list[ReviewItem]:
    """Return a verdict on each picture, the most unusual first.

    Args:
        facts: of its mask, by the picture's name.
    """
    signals = {name: _alone(one) for name, one in facts.items()}
    by_car: dict[str, dict[int, str]] = {}
    for name in facts:
        car, view = carvana.parse_name(name)
        by_car.setdefault(car, {})[view] = name
    rest = dict(facts)
    for views in by_car.values():
        if set(views) <= set(range(1, carvana.VIEWS + 1)):
            found = turntable.score_views({view: facts[name] for view, name in views.items()})
            for view, more in found.items():
                signals[views[view]] += more
                del rest[views[view]]
    for name, signal in _against_all(rest):
        signals[name].append(signal)
    verdicts = [_verdict(name, found) for name, found in signals.items()]
    return sorted(verdicts, key=lambda one: (-one.score, one.name))


def to_csv(verdicts: Sequence[ReviewItem], facts: Mapping[str, MaskShape]) -> bytes:
    """Return ``review.csv``: a line a picture, in the order of the verdicts."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["img", "score", "look", "reasons", "area", "pieces", "holes", "outline"])
    for one in verdicts:
        found = facts[one.name]
        said = one.name, f"{one.score:.2f}", int(one.listed), "; ".join(one.reasons)
        table.writerow(
            [*said, found.area, found.pieces, found.holes, f"{found.perimeter_ratio:.3f}"]
        )
    return text.getvalue().encode()


def _verdict(name: str, signals: list[tuple[float, str]]) -> ReviewItem:
    signals = sorted(signals, reverse=True)
    worst = signals[0][0]
    said = [text for score, text in signals if score >= REVIEW_SCORE]
    strongest = signals[0][1] if worst > 0 else "nothing"
    return ReviewItem(
        name, round(worst if worst == EMPTY else min(worst, MOST), 2), tuple(said or [strongest])
    )


def _alone(one: MaskShape) -> list[tuple[float, str]]:
    """Return (score, words) of each signal of a mask by itself."""
    if not one.area:
        return [(EMPTY, "the mask is empty")]
    if (share := one.area / (one.height * one.width)) >= FULL:  # of all views alike, perhaps
        return [(EMPTY, f"covers {share:.0%} of the picture: hardly any ground is left")]
    stray, hollow = one.stray_pixels / one.area, one.largest_hole / one.area
    others = one.pieces - 1
    return [
        (
            stray / STRAY,
            f"{others} {'pieces' if others > 1 else 'piece'} beside the largest, {stray:.1%} of it",
        ),
        (hollow / HOLLOW, f"a hole of {hollow:.1%} of the mask, {one.holes} in all"),
        (
            max(one.perimeter_ratio - PLAIN, 0) / OUTLINE,
            f"a ragged outline, {one.perimeter_ratio:.1f} times as long as that of its box",
        ),
    ]


def _against_all(facts: Mapping[str, MaskShape]) -> list[tuple[str, tuple[float, str]]]:
    """Return (name, (score, words)) of the areas of pictures, compared with those of all of them.

    For pictures that are not among the views of a car.
    """
    names = [name for name, one in facts.items() if one.area]
    if len(names) < FEWEST:
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
