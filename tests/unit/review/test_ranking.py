"""The review list: planted faults must top it, good masks must not be on it.

The law is proved on drawn cars, and on Kaggle's own masks where CARVANA_DATA names them.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carvana_ray import rle
from carvana_ray import sample as studio
from carvana_ray.data import layout as carvana
from carvana_ray.review import ranking as review
from carvana_ray.review import shape as silhouette
from carvana_ray.review.shape import MaskShape
from carvana_ray.sample import meshes as parts
from carvana_ray.sample import raster, scene

Mask = NDArray[np.bool_]
MaskOf = Callable[[str, int], Mask]
SIZE = carvana.HEIGHT, carvana.WIDTH
PLANTINGS, MUST = 20, 19


def name_of(car: str, view: int) -> str:
    return f"{car}_{view:02d}.jpg"


def facts_of(mask: Mask) -> MaskShape:
    return silhouette.measure(rle.encode(mask), *mask.shape)


def drawn_mask(car: studio.Car, view: int) -> Mask:
    stage = scene.stage(car, parts.build(car), view)
    left, top, right, bottom = box = scene.box_of(stage)
    mask = np.zeros(SIZE, dtype=bool)
    order = scene.outer_order(stage, view)
    mask[top:bottom, left:right] = raster.paint(stage.pixels, order, box) > 0
    return mask


def shift(mask: Mask, across: int, down: int = 0) -> Mask:
    moved = np.roll(mask, (down, across), axis=(0, 1))
    if across:
        moved[:, slice(0, across) if across > 0 else slice(across, None)] = False
    if down:
        moved[slice(0, down) if down > 0 else slice(down, None)] = False
    return moved


def hole(mask: Mask, share: float, rng: np.random.Generator) -> Mask:
    """Return a mask with a round hole of a share of its area, wherever there is room for one."""
    radius = np.sqrt(share * mask.sum() / np.pi)
    inside = np.zeros_like(mask)
    edge = int(radius) + 5
    inside[edge:-edge, edge:-edge] = True
    y, x = np.nonzero(mask & inside)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for place in rng.permutation(len(y))[:500]:
        away = (rows - y[place]) ** 2 + (columns - x[place]) ** 2
        if mask[away <= (radius + 3) ** 2].all():
            return mask & ~(away <= radius**2)
    raise AssertionError("no room for a hole")


@pytest.fixture(scope="module")
def drawn() -> tuple[MaskOf, dict[str, MaskShape]]:
    cars = {f"{n:012x}": studio.draw_car(np.random.default_rng(n)) for n in range(6)}
    masks = {
        name_of(car, view): drawn_mask(drawn, view)
        for car, drawn in cars.items()
        for view in range(1, 17)
    }
    return (
        lambda car, view: masks[name_of(car, view)],
        {name: facts_of(mask) for name, mask in masks.items()},
    )


@pytest.fixture(scope="module")
def real(real_data: Path) -> tuple[MaskOf, dict[str, MaskShape]]:
    csv.field_size_limit(10**9)
    with (real_data / "train_masks.csv").open(newline="") as file:
        texts = dict(list(csv.reader(file))[1:])
    return (
        lambda car, view: rle.decode(texts[name_of(car, view)], *SIZE),
        {name: silhouette.measure(text, *SIZE) for name, text in texts.items()},
    )


def planted(kind: str, mask_of: MaskOf, car: str, other: str, view: int, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    mask, step = mask_of(car, view), round(0.05 * carvana.WIDTH)
    return {
        "other": lambda: mask_of(other, view),
        "right": lambda: shift(mask, step),
        "left": lambda: shift(mask, -step),
        "down": lambda: shift(mask, 0, step),
        "hole": lambda: hole(mask, 0.02, rng),
    }[kind]()


def tops(kind: str, mask_of: MaskOf, facts: dict[str, MaskShape], seed: int) -> int:
    """Return in how many of `PLANTINGS` the planted view is the first of its car's 16."""
    rng = np.random.default_rng(seed)
    cars, found = carvana.unique_cars(facts), 0
    for number in range(PLANTINGS):
        car, other = rng.choice(cars, 2, replace=False)
        view = int(rng.integers(1, 17))
        views = {name_of(car, v): facts[name_of(car, v)] for v in range(1, 17)}
        fault = planted(kind, mask_of, car, other, view, 100 * seed + number)
        views[name_of(car, view)] = facts_of(fault)
        found += review.rank(views)[0].name == name_of(car, view)
    return found


KINDS = ["other", "right", "left", "down", "hole"]


@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_top_the_list_of_a_drawn_car(
    drawn: tuple[MaskOf, dict[str, MaskShape]], kind: str
) -> None:
    assert tops(kind, *drawn, seed=0) >= MUST


def test_good_drawn_masks_are_not_listed(drawn: tuple[MaskOf, dict[str, MaskShape]]) -> None:
    found = review.rank(drawn[1])
    assert len(found) == len(drawn[1])
    assert not any(one.listed for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_top_the_list_of_a_real_car(
    real: tuple[MaskOf, dict[str, MaskShape]], kind: str, seed: int
) -> None:
    assert tops(kind, *real, seed=seed) >= MUST


@pytest.mark.slow
def test_of_good_real_masks_one_in_a_hundred_is_listed_at_most(
    real: tuple[MaskOf, dict[str, MaskShape]],
) -> None:
    found = review.rank(real[1])
    assert sum(one.listed for one in found) <= len(found) / 100


def test_a_fault_is_said_in_words(drawn: tuple[MaskOf, dict[str, MaskShape]]) -> None:
    mask_of, facts = drawn
    car = "000000000002"
    views = {name: one for name, one in facts.items() if name.startswith(car)}

    def first(fault: Mask, view: int) -> review.ReviewItem:
        found = review.rank({**views, name_of(car, view): facts_of(fault)})[0]
        assert found.name == name_of(car, view)
        assert found.listed
        return found

    (right, *_) = first(shift(mask_of(car, 5), 96), 5).reasons
    number = int(right.split()[0])
    assert right == f"{number} pixels further right than its other views let expect"
    assert 80 <= number <= 112
    assert "lower than" in first(shift(mask_of(car, 6), 0, 60), 6).reasons[0]
    empty = first(np.zeros(SIZE, dtype=bool), 7)
    assert empty.reasons == ("the mask is empty",)
    dots = mask_of(car, 8).copy()
    dots[10:60, 10:60] = True
    (stray,) = [text for text in first(dots, 8).reasons if "beside the largest" in text]
    assert stray.startswith("1 piece beside the largest, 0.")
    with_hole = hole(mask_of(car, 4), 0.03, np.random.default_rng(0))
    (said,) = [text for text in first(with_hole, 4).reasons if "hole" in text]
    assert said.startswith("a hole of 3.")


def test_masks_that_are_all_full_are_all_listed() -> None:
    """Beside each other they look usual: so does a model that has learned nothing."""
    full = np.ones(SIZE, dtype=bool)
    full[: SIZE[0] // 20] = False
    names = [name_of("000000000002", view) for view in range(1, 17)] + ["a.jpg", "b.jpg"]
    for one in review.rank({name: facts_of(full) for name in names}):
        assert one.listed
        assert one.reasons[0] == "covers 95% of the picture: hardly any ground is left"


def test_a_ragged_outline_is_a_reason() -> None:
    mask = np.zeros((300, 400), dtype=bool)
    mask[100:200, 100:300] = True
    mask[80:200:2, 100:300] = True
    names = {f"{n}.jpg": facts_of(mask) for n in range(2)}
    assert any("ragged" in text for text in review.rank(names)[0].reasons)


def test_two_faults_of_a_car_are_both_found(drawn: tuple[MaskOf, dict[str, MaskShape]]) -> None:
    mask_of, facts = drawn
    car = "000000000001"
    views = {name: one for name, one in facts.items() if name.startswith(car)}
    for view in (3, 10):
        views[name_of(car, view)] = facts_of(shift(mask_of(car, view), 96))
    found = review.rank(views)
    assert {one.name for one in found[:2]} == {name_of(car, 3), name_of(car, 10)}
    assert not found[2].listed, "what is wrong with two views does not show in the others"


def test_a_missing_view_is_no_fault(drawn: tuple[MaskOf, dict[str, MaskShape]]) -> None:
    car = "000000000003"
    views = {
        name: one
        for name, one in drawn[1].items()
        if name.startswith(car) and name not in (name_of(car, 4), name_of(car, 12))
    }
    assert not any(one.listed for one in review.rank(views))


def test_of_pictures_of_any_name_the_odd_one_comes_first() -> None:
    mask = np.zeros((200, 300), dtype=bool)
    mask[60:140, 60:240] = True
    facts = {f"photo {n}.png": facts_of(shift(mask, n)) for n in range(20)}
    assert not any(one.listed for one in review.rank(facts))
    small = np.zeros_like(mask)
    small[90:110, 100:150] = True
    first = review.rank({**facts, "odd.png": facts_of(small)})[0]
    assert (first.name, first.listed) == ("odd.png", True)
    assert first.reasons == ("covers 1.7% of the picture, the catalogue's middle one 24.0%",)


def test_numbered_pictures_that_are_no_turntable_are_not_all_listed() -> None:
    rng = np.random.default_rng(0)
    facts = {}
    for view in range(1, 17):
        mask = np.zeros((400, 600), dtype=bool)
        top, left = rng.integers(10, 150, 2)
        mask[top : top + int(rng.integers(80, 200)), left : left + int(rng.integers(100, 300))] = 1
        facts[f"IMG_{view:02d}.jpg"] = facts_of(mask)
    assert sum(one.listed for one in review.rank(facts)) <= 3


def test_no_masks_make_no_list() -> None:
    assert review.rank({}) == []


def test_the_table_has_a_line_a_picture_in_the_order_of_the_list(
    drawn: tuple[MaskOf, dict[str, MaskShape]],
) -> None:
    facts = drawn[1]
    found = review.rank(facts)
    header, *rows = csv.reader(review.to_csv(found, facts).decode().splitlines())
    assert header == ["img", "score", "look", "reasons", "area", "pieces", "holes", "outline"]
    assert [row[0] for row in rows] == [one.name for one in found]
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row[2] for row in rows} == {"0"}
    assert [int(row[4]) for row in rows] == [facts[row[0]].area for row in rows]
