"""The drawn sample: every view of a car is one car, and its mask is where that car is."""

import hashlib
import io
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import sample as studio
from carvana_ray.sample import body as shape

HEIGHT, WIDTH = 1280, 1918
SEED = 11
Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def digest(pair: Pair) -> str:
    return hashlib.sha256(pair[0].tobytes() + pair[1].tobytes()).hexdigest()


@pytest.fixture(scope="module")
def car() -> studio.Car:
    return studio.draw_car(rng(SEED))


@pytest.fixture(scope="module")
def pairs(car: studio.Car) -> dict[int, Pair]:
    return {view: studio.photograph(car, view, rng(SEED, view)) for view in (1, 3, 5, 9, 13, 15)}


@pytest.fixture
def small(pairs: dict[int, Pair]) -> dict[int, NDArray[np.bool_]]:
    return {view: mask[::4, ::4] for view, (_, mask) in pairs.items()}


def test_pictures_and_masks_have_the_size_and_type_of_the_real_ones(pairs: dict[int, Pair]) -> None:
    for image, mask in pairs.values():
        assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), np.bool_)
        assert image.flags.writeable
        assert image.flags.owndata


def test_the_same_seed_gives_the_same_bytes(car: studio.Car, pairs: dict[int, Pair]) -> None:
    assert studio.draw_car(rng(SEED)) == car
    assert digest(studio.photograph(car, 3, rng(SEED, 3))) == digest(pairs[3])


def test_another_generator_changes_the_noise_alone(car: studio.Car, pairs: dict[int, Pair]) -> None:
    image, mask = studio.photograph(car, 3, rng(SEED, 99))
    before, outline = pairs[3]
    assert (mask == outline).all()
    apart = image.astype(int) - before
    assert 1 < apart.std() < 6
    assert abs(apart.mean()) < 0.1


def test_another_seed_draws_another_car(car: studio.Car, pairs: dict[int, Pair]) -> None:
    other = studio.draw_car(rng(SEED + 1))
    assert other != car
    assert digest(studio.photograph(other, 5, rng(SEED, 5))) != digest(pairs[5])


def test_a_car_is_frozen_and_seeds_draw_every_style_and_common_colour(car: studio.Car) -> None:
    with pytest.raises(FrozenInstanceError):
        car.length_m = 1.0  # type: ignore[misc]
    cars = [studio.draw_car(rng(seed)) for seed in range(200)]
    assert len({one.style for one in cars}) == 6
    colours = [one.paint_name for one in cars]
    pale = sum(name in ("white", "silver") for name in colours) / len(cars)
    assert 0.25 < pale < 0.55
    assert 0.3 < sum(one.antenna == "mast" for one in cars) / len(cars) < 0.8
    assert all(3.5 < one.length_m < 6.0 and 1.3 < one.height_m < 2.0 for one in cars)


def test_views_show_one_car_from_sixteen_sides(
    car: studio.Car, pairs: dict[int, Pair], small: dict[int, NDArray[np.bool_]]
) -> None:
    assert len({digest(pair) for pair in pairs.values()}) == len(pairs)
    # Side on the car is wider in the picture than end on, by its length over its width.
    wide = {view: np.ptp(np.flatnonzero(mask.any(axis=0))) for view, mask in small.items()}
    assert wide[5] > 1.5 * wide[1]
    assert wide[13] > 1.5 * wide[9]
    assert wide[1] < wide[3] < wide[5]


def test_the_nose_points_left_in_view_5_and_right_in_view_13(
    small: dict[int, NDArray[np.bool_]],
) -> None:
    # A roof lies behind the middle, a bonnet before it: the upper half of a car leans backwards.
    for view, sign in ((5, 1), (13, -1)):
        rows, columns = np.nonzero(small[view])
        upper = columns[rows < rows.min() + 0.25 * np.ptp(rows)]
        assert sign * (upper.mean() - (columns.min() + columns.max()) / 2) > 0


@pytest.mark.parametrize(("view", "opposite"), [(5, 13), (3, 15)])
def test_the_left_and_the_right_have_about_mirrored_outlines(
    small: dict[int, NDArray[np.bool_]], view: int, opposite: int
) -> None:
    one, other = small[view], small[opposite][:, ::-1]

    def middle(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows, columns = np.nonzero(mask)
        return np.rint([rows.mean(), columns.mean()]).astype(np.int64)

    shift = middle(one) - middle(other)
    other = np.roll(other, shift, axis=(0, 1))
    agreement = (one & other).sum() / (one | other).sum()
    # Parked a little askew, an antenna on one wing, but the same on the left as on the right.
    assert agreement > 0.93


def test_the_share_of_the_picture_is_that_of_real_cars(
    small: dict[int, NDArray[np.bool_]],
) -> None:
    # 96 real cars: 0.09 to 0.40 over all views, 0.16 on average end on and 0.235 side on.
    shares = {view: mask.mean() for view, mask in small.items()}
    assert all(0.09 < share < 0.40 for share in shares.values())
    assert shares[1] < shares[5]
    assert shares[9] < shares[13]


def reached(mask: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the part of a mask that hangs together with a place in it, corners counting."""
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


def middle_of(mask: NDArray[np.bool_]) -> tuple[int, int]:
    rows, columns = np.nonzero(mask)
    return int(rows.mean()), int(columns.mean())


def test_a_mask_hangs_together_and_has_no_holes(small: dict[int, NDArray[np.bool_]]) -> None:
    for view, mask in small.items():
        body = reached(mask, middle_of(mask))
        assert body.sum() > 0.995 * mask.sum(), f"view {view}: floating bits"
        outside = reached(~np.pad(mask, 1), (0, 0))[1:-1, 1:-1]
        holes = ~(outside | mask)
        assert holes.sum() < 0.005 * mask.sum(), f"view {view}: windows or shell have holes"


def test_the_shell_of_every_style_closes_at_nose_and_tail() -> None:
    cars = {one.style: one for one in (studio.draw_car(rng(seed)) for seed in range(100))}
    assert len(cars) == 6
    for style, one in cars.items():
        points, normals, _ = shape.shell_grid(one)
        assert np.abs(points[[0, -1], :, 1]).max() < 1e-9, style
        assert np.allclose(np.linalg.norm(normals, axis=-1), 1), style
        # Outwards: to the left on the left flank, upwards in the middle of the roof.
        middle = len(points) // 2
        assert normals[middle, 5, 1] > 0.9, style
        assert normals[middle, points.shape[1] // 2, 2] > 0.5, style


def test_the_fill_of_this_file_finds_bits_that_float() -> None:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[5:20, 5:30] = True
    mask[30:33, 50:55] = True
    assert reached(mask, (10, 10)).sum() == 15 * 25


def test_the_shadow_is_dark_and_not_in_the_mask(pairs: dict[int, Pair]) -> None:
    for view in (5, 13):
        image, mask = pairs[view]
        _, columns = np.nonzero(mask)
        centre = (columns.min() + columns.max()) // 2
        foot = np.flatnonzero(mask[:, centre]).max()
        near = slice(foot + 12, foot + 28), slice(centre - 40, centre + 40)
        far = slice(HEIGHT - 60, HEIGHT - 30), slice(centre - 40, centre + 40)
        assert not mask[near].any()
        assert image[near].mean() < 0.75 * image[far].mean()


def test_the_mask_is_where_the_car_is(car: studio.Car, pairs: dict[int, Pair]) -> None:
    # What changes from view to view, wall and floor apart, is the car: the upper wall never is.
    first, second = pairs[1], pairs[5]
    apart = np.abs(first[0].astype(int) - second[0]).mean(axis=2)[::4, ::4]
    either = (first[1] | second[1])[::4, ::4]
    assert np.median(apart[either]) > 4 * np.median(apart[~either])


def test_an_antenna_is_thin_and_in_the_mask() -> None:
    with_mast = next(
        one
        for one in (studio.draw_car(rng(seed)) for seed in range(50))
        if one.antenna == "mast" and one.style == "sedan" and one.antenna_m > 0.35
    )
    _, mask = studio.photograph(with_mast, 5, rng(0))
    top = np.flatnonzero(mask.any(axis=1)).min()
    rows = mask[top + 5 : top + 60].sum(axis=1)
    assert rows.min() >= 1
    assert rows.max() <= 6


def test_a_jpeg_is_like_the_real_ones(pairs: dict[int, Pair]) -> None:
    for image, _ in pairs.values():
        data = studio.encode_jpeg(image)
        assert 60_000 < len(data) < 160_000
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert picture.size == (WIDTH, HEIGHT)
            assert [part[1:3] for part in picture.layer] == [(2, 2), (1, 1), (1, 1)]
            back = np.asarray(picture).astype(int)
        assert np.abs(back - image).mean() < 4


def test_a_mask_comes_back_from_its_gif(pairs: dict[int, Pair]) -> None:
    for mask in (pairs[1][1], pairs[5][1], np.ones((7, 5), dtype=np.bool_)):
        data = studio.encode_mask(mask)
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.mode, picture.n_frames) == ("GIF", "P", 1)
            assert picture.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
            assert (np.asarray(picture) == mask).all()
            gray = np.asarray(picture.convert("L"))
        assert set(np.unique(gray)) <= {0, 255}
        assert ((gray == 255) == mask).all()


@pytest.mark.parametrize("view", [0, 17, -1])
def test_a_view_that_is_not_one_of_16_is_refused(car: studio.Car, view: int) -> None:
    with pytest.raises(ValueError, match=f"view {view}: expected 1 to 16"):
        studio.photograph(car, view, rng(0))


def test_a_car_has_the_columns_of_the_table_of_cars(car: studio.Car) -> None:
    table = studio.make_and_model(car)
    assert list(table) == ["year", "make", "model", "trim1", "trim2"]
    assert all(isinstance(value, str) for value in table.values())
    assert 2000 < int(table["year"]) < 2020
    assert table == studio.make_and_model(studio.draw_car(rng(SEED)))
