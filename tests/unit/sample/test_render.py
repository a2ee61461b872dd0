"""Rendered images: all views show one car, and the mask is where the car is."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray
from support.drawn_car import SEED, Mask, Pair, rng

from carvana_ray import sample

HEIGHT, WIDTH = 1280, 1918
Masks = dict[int, Mask]


def digest(pair: Pair) -> str:
    return hashlib.sha256(pair[0].tobytes() + pair[1].tobytes()).hexdigest()


def test_images_and_masks_have_the_size_and_type_of_the_real_ones(pairs: dict[int, Pair]) -> None:
    for image, mask in pairs.values():
        assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), np.bool_)
        assert image.flags.writeable
        assert image.flags.owndata


def test_the_same_seed_gives_the_same_bytes(car: sample.Car, pairs: dict[int, Pair]) -> None:
    assert digest(sample.photograph(car, 3, rng(SEED, 3))) == digest(pairs[3])


def test_another_generator_changes_only_the_noise(car: sample.Car, pairs: dict[int, Pair]) -> None:
    image, mask = sample.photograph(car, 3, rng(SEED, 99))
    before, mask_before = pairs[3]
    assert (mask == mask_before).all()
    difference = image.astype(int) - before
    assert 1 < difference.std() < 6
    assert abs(difference.mean()) < 0.1


def test_another_car_gives_another_image(pairs: dict[int, Pair]) -> None:
    other = sample.draw_car(rng(SEED + 1))
    assert digest(sample.photograph(other, 5, rng(SEED, 5))) != digest(pairs[5])


def test_views_show_one_car_from_all_sides(pairs: dict[int, Pair], small_masks: Masks) -> None:
    assert len({digest(pair) for pair in pairs.values()}) == len(pairs)
    # Side views are wider than front views, by the car's length over its width.
    width = {view: np.ptp(np.flatnonzero(mask.any(axis=0))) for view, mask in small_masks.items()}
    assert width[5] > 1.5 * width[1]
    assert width[13] > 1.5 * width[9]
    assert width[1] < width[3] < width[5]


def test_the_nose_points_left_in_view_5_and_right_in_view_13(small_masks: Masks) -> None:
    # The roof is behind the middle and the hood in front: the upper half of a car is further back.
    for view, sign in ((5, 1), (13, -1)):
        rows, columns = np.nonzero(small_masks[view])
        upper = columns[rows < rows.min() + 0.25 * np.ptp(rows)]
        assert sign * (upper.mean() - (columns.min() + columns.max()) / 2) > 0


@pytest.mark.parametrize(("view", "opposite"), [(5, 13), (3, 15)])
def test_opposite_views_have_nearly_mirrored_outlines(
    small_masks: Masks, view: int, opposite: int
) -> None:
    mask, other = small_masks[view], small_masks[opposite][:, ::-1]

    def center(mask: Mask) -> NDArray[np.int64]:
        rows, columns = np.nonzero(mask)
        return np.rint([rows.mean(), columns.mean()]).astype(np.int64)

    other = np.roll(other, center(mask) - center(other), axis=(0, 1))
    agreement = (mask & other).sum() / (mask | other).sum()
    # The car is parked a little askew and has one antenna, so the outlines differ slightly.
    assert agreement > 0.93


def test_a_car_covers_as_much_of_the_image_as_real_cars(small_masks: Masks) -> None:
    # 96 real cars cover 0.09 to 0.40; 0.16 on average in front views and 0.235 in side views.
    covered = {view: mask.mean() for view, mask in small_masks.items()}
    assert all(0.09 < fraction < 0.40 for fraction in covered.values())
    assert covered[1] < covered[5]
    assert covered[9] < covered[13]


def component(mask: Mask, start: tuple[int, int]) -> Mask:
    """Return the 8-connected component of a mask that contains a pixel."""
    found = np.zeros_like(mask)
    found[start] = mask[start]
    count = 0
    while found.sum() != count:
        count = int(found.sum())
        for _ in range(12):
            grown = found.copy()
            grown[1:] |= found[:-1]
            grown[:-1] |= found[1:]
            found = grown.copy()
            found[:, 1:] |= grown[:, :-1]
            found[:, :-1] |= grown[:, 1:]
            found &= mask
    return found


def test_a_mask_is_connected_and_has_no_holes(small_masks: Masks) -> None:
    for view, mask in small_masks.items():
        rows, columns = np.nonzero(mask)
        body = component(mask, (int(rows.mean()), int(columns.mean())))
        assert body.sum() > 0.995 * mask.sum(), f"view {view}: stray pieces"
        outside = component(~np.pad(mask, 1), (0, 0))[1:-1, 1:-1]
        holes = ~(outside | mask)
        assert holes.sum() < 0.005 * mask.sum(), f"view {view}: holes"


def test_a_component_of_this_file_excludes_stray_pieces() -> None:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[5:20, 5:30] = True
    mask[30:33, 50:55] = True
    assert component(mask, (10, 10)).sum() == 15 * 25


def test_the_shadow_is_dark_and_not_in_the_mask(pairs: dict[int, Pair]) -> None:
    for view in (5, 13):
        image, mask = pairs[view]
        _, columns = np.nonzero(mask)
        center = (columns.min() + columns.max()) // 2
        foot = np.flatnonzero(mask[:, center]).max()
        near = slice(foot + 12, foot + 28), slice(center - 40, center + 40)
        far = slice(HEIGHT - 60, HEIGHT - 30), slice(center - 40, center + 40)
        assert not mask[near].any()
        assert image[near].mean() < 0.75 * image[far].mean()


def test_the_mask_is_where_the_car_is(pairs: dict[int, Pair]) -> None:
    # Between two views the car changes, wall and floor hardly do.
    first, second = pairs[1], pairs[5]
    difference = np.abs(first[0].astype(int) - second[0]).mean(axis=2)[::4, ::4]
    either = (first[1] | second[1])[::4, ::4]
    assert np.median(difference[either]) > 4 * np.median(difference[~either])


def test_an_antenna_is_thin_and_in_the_mask() -> None:
    car = next(
        car
        for car in (sample.draw_car(rng(seed)) for seed in range(50))
        if car.antenna == "mast" and car.style == "sedan" and car.antenna_m > 0.35
    )
    _, mask = sample.photograph(car, 5, rng(0))
    top = np.flatnonzero(mask.any(axis=1)).min()
    rows = mask[top + 5 : top + 60].sum(axis=1)
    assert rows.min() >= 1
    assert rows.max() <= 6


@pytest.mark.parametrize("view", [0, 17, -1])
def test_a_view_outside_1_to_16_is_rejected(car: sample.Car, view: int) -> None:
    with pytest.raises(ValueError, match=f"view {view}: expected 1 to 16"):
        sample.photograph(car, view, rng(0))


def test_the_studio_is_drawn_as_ever() -> None:
    pair = sample.photograph(sample.draw_car(rng(3, 2)), 3, rng(4, 2))
    assert digest(pair).startswith("2ff81e501fdfe8f5")
