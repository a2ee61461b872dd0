"""Which masks should a person check first? A ranking without ground truth, with reasons.

Each image gets a score: the distance of its mask from what is usual, in standard deviations, the
largest over several signals. A mask by itself can have pieces, holes or a ragged outline. If a car
was photographed on a turntable in 16 views, each view is also compared with the others.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carvana_ray.data.cars import KAGGLE, CarNames
from carvana_ray.data.layout import VIEWS
from carvana_ray.errors import plural
from carvana_ray.review import turntable
from carvana_ray.review.shape import MaskShape

Signal = tuple[float, str]  # score in standard deviations, reason in words

FILE = "review.csv"
COLUMNS = "img", "score", "look", "reasons", "area", "pieces", "holes", "outline"
REVIEW_SCORE = 5.0  # score from which an image is listed; 3 of 1,536 real masks reach it
CORRECTED = "corrected"  # reason of an image whose mask a person has corrected
EMPTY_SCORE = 1000.0  # score of an empty or full mask
MAX_SCORE = 100.0  # maximum of all other scores
FULL_FRACTION = 0.9  # of the image that a full mask covers; 768 real masks cover at most 0.40
# Unit of each signal's score: 99 % of 1,536 real masks have less than three units.
STRAY_UNIT = 0.0005  # stray pixels, as a fraction of the mask
HOLE_UNIT = 0.002  # pixels of the largest hole, as a fraction of the mask
OUTLINE_UNIT = 0.1  # of the perimeter ratio, above `PLAIN_OUTLINE`
PLAIN_OUTLINE = 1.1  # perimeter ratio of a smooth mask
MIN_IMAGES = 8  # to compare their areas
MIN_LOG_SPREAD = 0.05  # least standard deviation of the logarithm of the areas


@dataclass(frozen=True)
class ReviewItem:
    """The rank of an image in the review."""

    name: str
    score: float  # how unusual the mask is, in standard deviations; 0 or more
    reasons: tuple[str, ...]  # those that reach `REVIEW_SCORE`, or else the strongest one

    @property
    def listed(self) -> bool:
        """Whether a person should check the mask."""
        return self.score >= REVIEW_SCORE

    @property
    def corrected(self) -> bool:
        """Whether a person has corrected the mask, and it is neither empty nor full."""
        return self.reasons == (CORRECTED,)


def rank(
    shapes: Mapping[str, MaskShape],
    cars_by: CarNames = KAGGLE,
    corrected: Collection[str] = (),
) -> list[ReviewItem]:
    """Return an item for each image, the most unusual first.

    Args:
        shapes: of the masks, by image.
        cars_by: how names give cars.
        corrected: images whose mask a person has corrected. The others are compared with them, but
            they are listed only if their mask is empty or full.
    """
    signals = {name: _shape_signals(shape) for name, shape in shapes.items()}
    cars: dict[str, dict[int, str]] = {}
    for name in shapes:
        car, view = cars_by.parse(name)
        cars.setdefault(car, {})[view] = name
    not_compared = dict(shapes)
    for names in cars.values():
        if set(names) <= set(range(1, VIEWS + 1)):
            views = {view: shapes[name] for view, name in names.items()}
            for view, view_signals in turntable.score_views(views).items():
                signals[names[view]] += view_signals
                del not_compared[names[view]]
    for name, signal in _area_signals(not_compared).items():
        signals[name].append(signal)
    items = [_review_item(name, image_signals) for name, image_signals in signals.items()]
    items = [_seen(item) if item.name in corrected else item for item in items]
    return sorted(items, key=lambda item: (-item.score, item.name))


def to_csv(items: Sequence[ReviewItem], shapes: Mapping[str, MaskShape]) -> bytes:
    """Return ``review.csv``: a line for each item of `rank`, in their order."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for item in items:
        shape = shapes[item.name]
        rank_cells = [item.name, f"{item.score:.2f}", int(item.listed), "; ".join(item.reasons)]
        outline = f"{shape.perimeter_ratio:.3f}"
        table.writerow([*rank_cells, shape.area, shape.pieces, shape.holes, outline])
    return text.getvalue().encode()


def _review_item(name: str, signals: Sequence[Signal]) -> ReviewItem:
    signals = sorted(signals, reverse=True)
    score, reason = signals[0]
    reasons = [reason for score, reason in signals if score >= REVIEW_SCORE]
    if not reasons:
        reasons = [reason if score > 0 else "nothing unusual"]
    if score != EMPTY_SCORE:
        score = min(score, MAX_SCORE)
    return ReviewItem(name, round(score, 2), tuple(reasons))


def _seen(item: ReviewItem) -> ReviewItem:
    """Return the item of an image whose mask a person has corrected."""
    return item if item.score == EMPTY_SCORE else ReviewItem(item.name, 0.0, (CORRECTED,))


def _shape_signals(shape: MaskShape) -> list[Signal]:
    """Return the signals of a mask by itself."""
    if not shape.area:
        return [(EMPTY_SCORE, "the mask is empty")]
    # A model may fill all views alike, so that none differs from the others.
    if (covered := shape.area / (shape.height * shape.width)) >= FULL_FRACTION:
        return [(EMPTY_SCORE, f"covers {covered:.0%} of the image, almost no background is left")]
    stray, hole = shape.stray_pixels / shape.area, shape.largest_hole / shape.area
    ratio = shape.perimeter_ratio
    pieces, holes = plural(shape.pieces - 1, "piece"), plural(shape.holes, "hole")
    outline = f"ragged outline, {ratio:.1f} times as long as the perimeter of the bounding box"
    return [
        (stray / STRAY_UNIT, f"stray pieces are {stray:.1%} of the mask ({pieces})"),
        (hole / HOLE_UNIT, f"the largest hole is {hole:.1%} of the mask ({holes})"),
        (max(ratio - PLAIN_OUTLINE, 0) / OUTLINE_UNIT, outline),
    ]


def _area_signals(shapes: Mapping[str, MaskShape]) -> dict[str, Signal]:
    """Return a signal for each image: its area against the median of all images.

    Used for images that are not views of a car. The scale is robust: 1.4826 times the median
    absolute deviation is the standard deviation of a normal distribution.
    """
    masks = {name: shape for name, shape in shapes.items() if shape.area}
    if len(masks) < MIN_IMAGES:
        return {}
    covered = np.array([shape.area / (shape.height * shape.width) for shape in masks.values()])
    median = float(np.median(covered))
    distance = np.abs(np.log(covered / median))
    spread = max(1.4826 * float(np.median(distance)), MIN_LOG_SPREAD)
    words = "covers {:.1%} of the image, the median of the catalog is {:.1%}"
    return {
        name: (float(score), words.format(fraction, median))
        for name, score, fraction in zip(masks, distance / spread, covered, strict=True)
    }
