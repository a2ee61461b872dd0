"""The review: planted faults must come first, good masks must not be listed.

Tested on drawn cars, and on Kaggle's own masks if CARVANA_DATA names their folder.
"""

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carvana_ray import rle, sample
from carvana_ray.config.cars_flag import car_pattern
from carvana_ray.data.cars import KAGGLE, CarNames
from carvana_ray.data.layout import HEIGHT, WIDTH
from carvana_ray.review.ranking import ReviewItem, rank, to_csv
from carvana_ray.review.shape import MaskShape, measure
from carvana_ray.sample import meshes, raster, render, scene

Mask = NDArray[np.bool_]
MaskOf = Callable[[str, int], Mask]
Masks = tuple[MaskOf, dict[str, MaskShape]]
SIZE = HEIGHT, WIDTH
PLANTED, MIN_FOUND = 20, 19
KINDS = ["other", "right", "left", "down", "hole"]


def name_of(car: str, view: int) -> str:
    return f"{car}_{view:02d}.jpg"


def shape_of(mask: Mask) -> MaskShape:
    return measure(rle.encode(mask), *mask.shape)


def drawn_mask(car: sample.Car, view: int) -> Mask:
    stage = scene.build_scene(car, meshes.build_meshes(car), view)
    left, top, right, bottom = box = scene.bounding_box(stage)
    mask = np.zeros(SIZE, dtype=bool)
    order = scene.paint_order(stage, render._camera_in_car_axes(car, view))
    mask[top:bottom, left:right] = raster.rasterize(stage.pixels, order, box) > 0
    return mask


def shift(mask: Mask, dx: int, dy: int = 0) -> Mask:
    shifted = np.roll(mask, (dy, dx), axis=(0, 1))
    if dx:
        shifted[:, slice(0, dx) if dx > 0 else slice(dx, None)] = False
    if dy:
        shifted[slice(0, dy) if dy > 0 else slice(dy, None)] = False
    return shifted


def with_hole(mask: Mask, fraction: float, rng: np.random.Generator) -> Mask:
    """Return the mask with a round hole of a fraction of its area, at a random place inside it."""
    radius = np.sqrt(fraction * mask.sum() / np.pi)
    inside = np.zeros_like(mask)
    edge = int(radius) + 5
    inside[edge:-edge, edge:-edge] = True
    y, x = np.nonzero(mask & inside)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for index in rng.permutation(len(y))[:500]:
        distance = (rows - y[index]) ** 2 + (columns - x[index]) ** 2
        if mask[distance <= (radius + 3) ** 2].all():
            return mask & ~(distance <= radius**2)
    raise AssertionError("no room for a hole")


@pytest.fixture(scope="module")
def drawn() -> Masks:
    cars = {f"{n:012x}": sample.draw_car(np.random.default_rng(n)) for n in range(6)}
    masks = {
        name_of(name, view): drawn_mask(car, view)
        for name, car in cars.items()
        for view in range(1, 17)
    }
    return (
        lambda car, view: masks[name_of(car, view)],
        {name: shape_of(mask) for name, mask in masks.items()},
    )


@pytest.fixture(scope="module")
def real(real_data: Path) -> Masks:
    csv.field_size_limit(10**9)
    with (real_data / "train_masks.csv").open(newline="") as file:
        texts = dict(list(csv.reader(file))[1:])
    return (
        lambda car, view: rle.decode(texts[name_of(car, view)], *SIZE),
        {name: measure(text, *SIZE) for name, text in texts.items()},
    )


def faulty(kind: str, mask_of: MaskOf, car: str, other: str, view: int, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    mask, step = mask_of(car, view), round(0.05 * WIDTH)
    return {
        "other": lambda: mask_of(other, view),
        "right": lambda: shift(mask, step),
        "left": lambda: shift(mask, -step),
        "down": lambda: shift(mask, 0, step),
        "hole": lambda: with_hole(mask, 0.02, rng),
    }[kind]()


def count_first(kind: str, mask_of: MaskOf, shapes: dict[str, MaskShape], seed: int) -> int:
    """Return how often, in `PLANTED` trials, the faulty view is ranked first of its car's 16."""
    rng = np.random.default_rng(seed)
    cars, first = KAGGLE.unique(shapes), 0
    for number in range(PLANTED):
        car, other = rng.choice(cars, 2, replace=False)
        view = int(rng.integers(1, 17))
        views = {name_of(car, v): shapes[name_of(car, v)] for v in range(1, 17)}
        fault = faulty(kind, mask_of, car, other, view, 100 * seed + number)
        views[name_of(car, view)] = shape_of(fault)
        first += rank(views)[0].name == name_of(car, view)
    return first


@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_come_first_among_the_views_of_a_drawn_car(drawn: Masks, kind: str) -> None:
    assert count_first(kind, *drawn, seed=0) >= MIN_FOUND


def test_good_drawn_masks_are_not_listed(drawn: Masks) -> None:
    items = rank(drawn[1])
    assert len(items) == len(drawn[1])
    assert not any(item.listed for item in items)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_come_first_among_the_views_of_a_real_car(
    real: Masks, kind: str, seed: int
) -> None:
    assert count_first(kind, *real, seed=seed) >= MIN_FOUND


@pytest.mark.slow
def test_at_most_one_in_a_hundred_good_real_masks_is_listed(real: Masks) -> None:
    items = rank(real[1])
    assert sum(item.listed for item in items) <= len(items) / 100


def test_reasons_are_in_words(drawn: Masks) -> None:
    mask_of, shapes = drawn
    car = "000000000002"
    views = {name: shape for name, shape in shapes.items() if name.startswith(car)}

    def first(fault: Mask, view: int) -> ReviewItem:
        item = rank({**views, name_of(car, view): shape_of(fault)})[0]
        assert item.name == name_of(car, view)
        assert item.listed
        return item

    (right, *_) = first(shift(mask_of(car, 5), 96), 5).reasons
    number = int(right.split()[0])
    assert right == f"{number} px further right than the car's other views suggest"
    assert 80 <= number <= 112
    assert "lower than" in first(shift(mask_of(car, 6), 0, 60), 6).reasons[0]
    empty = first(np.zeros(SIZE, dtype=bool), 7)
    assert empty.reasons == ("the mask is empty",)
    dots = mask_of(car, 8).copy()
    dots[10:60, 10:60] = True
    (stray,) = [text for text in first(dots, 8).reasons if "stray" in text]
    assert re.fullmatch(r"stray pieces are 0\.\d% of the mask \(1 piece\)", stray)
    holed = with_hole(mask_of(car, 4), 0.03, np.random.default_rng(0))
    (hole,) = [text for text in first(holed, 4).reasons if "hole" in text]
    assert re.fullmatch(r"the largest hole is 3\.\d% of the mask \(1 hole\)", hole)


def test_masks_that_are_all_full_are_all_listed() -> None:
    """A model that has learned nothing fills all views alike, so none differs from the others."""
    full = np.ones(SIZE, dtype=bool)
    full[: SIZE[0] // 20] = False
    names = [name_of("000000000002", view) for view in range(1, 17)] + ["a.jpg", "b.jpg"]
    for item in rank({name: shape_of(full) for name in names}):
        assert item.listed
        assert item.reasons[0] == "covers 95% of the image, almost no background is left"


def test_a_ragged_outline_is_a_reason() -> None:
    mask = np.zeros((300, 400), dtype=bool)
    mask[100:200, 100:300] = True
    mask[80:200:2, 100:300] = True
    shapes = {f"{n}.jpg": shape_of(mask) for n in range(2)}
    assert any("ragged" in text for text in rank(shapes)[0].reasons)


def test_two_faults_of_a_car_are_both_found(drawn: Masks) -> None:
    mask_of, shapes = drawn
    car = "000000000001"
    views = {name: shape for name, shape in shapes.items() if name.startswith(car)}
    for view in (3, 10):
        views[name_of(car, view)] = shape_of(shift(mask_of(car, view), 96))
    items = rank(views)
    assert {item.name for item in items[:2]} == {name_of(car, 3), name_of(car, 10)}
    assert not items[2].listed, "a fault of two views does not raise the scores of the others"


def test_a_missing_view_is_no_fault(drawn: Masks) -> None:
    car = "000000000003"
    views = {
        name: shape
        for name, shape in drawn[1].items()
        if name.startswith(car) and name not in (name_of(car, 4), name_of(car, 12))
    }
    assert not any(item.listed for item in rank(views))


def test_the_odd_one_of_images_with_any_names_comes_first() -> None:
    mask = np.zeros((200, 300), dtype=bool)
    mask[60:140, 60:240] = True
    shapes = {f"photo {n}.png": shape_of(shift(mask, n)) for n in range(20)}
    assert not any(item.listed for item in rank(shapes))
    small = np.zeros_like(mask)
    small[90:110, 100:150] = True
    first = rank({**shapes, "odd.png": shape_of(small)})[0]
    assert (first.name, first.listed) == ("odd.png", True)
    assert first.reasons == ("covers 1.7% of the image, the median of the catalog is 24.0%",)


def test_numbered_images_that_are_no_turntable_are_not_all_listed() -> None:
    rng = np.random.default_rng(0)
    shapes = {}
    for view in range(1, 17):
        mask = np.zeros((400, 600), dtype=bool)
        top, left = rng.integers(10, 150, 2)
        mask[top : top + int(rng.integers(80, 200)), left : left + int(rng.integers(100, 300))] = 1
        shapes[f"IMG_{view:02d}.jpg"] = shape_of(mask)
    assert sum(item.listed for item in rank(shapes)) <= 3
    assert sum(item.listed for item in rank(shapes, CarNames(car_pattern("CAR_VIEW")))) <= 3


def test_views_are_compared_only_if_the_names_say_so(drawn: Masks) -> None:
    mask_of, shapes = drawn
    by_car: dict[str, dict[str, MaskShape]] = {}
    for name, shape in shapes.items():
        car, view = KAGGLE.parse(name)
        by_car.setdefault(car, {})[f"roadster-{view}.jpg"] = shape
    views = next(iter(by_car.values()))
    views["roadster-3.jpg"] = shape_of(np.roll(mask_of(next(iter(by_car)), 3), 90, 1))
    first = rank(views, CarNames(car_pattern("CAR-VIEW")))[0]
    assert (first.name, first.listed) == ("roadster-3.jpg", True)
    assert rank(views)[0].score != first.score


def test_no_masks_give_no_items() -> None:
    assert rank({}) == []


def test_the_table_has_a_line_per_image_in_the_order_of_the_ranking(drawn: Masks) -> None:
    shapes = drawn[1]
    items = rank(shapes)
    header, *rows = csv.reader(to_csv(items, shapes).decode().splitlines())
    assert header == ["img", "score", "look", "reasons", "area", "pieces", "holes", "outline"]
    assert [row[0] for row in rows] == [item.name for item in items]
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row[2] for row in rows} == {"0"}
    assert [int(row[4]) for row in rows] == [shapes[row[0]].area for row in rows]


def test_a_corrected_mask_is_not_listed_but_the_others_are_compared_with_it(drawn: Masks) -> None:
    car = next(iter(drawn[1])).rpartition("_")[0]
    views = {name: shape for name, shape in drawn[1].items() if name.startswith(car)}
    ragged = sorted(views)[2]
    views[ragged] = dataclasses.replace(views[ragged], perimeter_ratio=9.0)
    before = rank(views)
    assert (before[0].name, before[0].listed) == (ragged, True)
    items = rank(views, corrected=[ragged])
    assert items[-1] == ReviewItem(ragged, 0.0, ("corrected",))
    assert [item.corrected for item in items] == [False] * (len(items) - 1) + [True]
    assert not items[-1].listed
    assert items[:-1] == before[1:]
    assert rank(views)[:-1] != rank({n: s for n, s in views.items() if n != ragged})


@pytest.mark.parametrize("value", [0, 1])
def test_an_empty_or_full_mask_is_listed_although_it_is_corrected(value: int) -> None:
    shape = shape_of(np.full((40, 60), value, bool))
    (item,) = rank({"a.jpg": shape}, corrected=["a.jpg"])
    assert item.listed
    assert not item.corrected
