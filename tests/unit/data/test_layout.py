"""Kaggle's names; the split by car, a function of seed and set of cars that never divides one."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray.data import layout as carvana
from carvana_ray.data import split as splits
from carvana_ray.errors import InputError

CARS = [f"{number:012x}" for number in range(40)]


@pytest.mark.parametrize(
    ("name", "car", "view"),
    [
        ("0cdf5b5d0ce1_04.jpg", "0cdf5b5d0ce1", 4),
        ("0cdf5b5d0ce1_16.jpg", "0cdf5b5d0ce1", 16),
        ("red_car_07.png", "red_car", 7),
        ("a.b_01.jpeg", "a.b", 1),
        ("a_99.jpg", "a", 99),
        ("a_1.jpg", "a_1", 0),
        ("a_001.jpg", "a_001", 0),
        ("lonely.jpg", "lonely", 0),
        ("_04.jpg", "_04", 0),
        ('a, "b"_02.jpg', 'a, "b"', 2),
    ],
)
def test_a_file_name_has_a_car_and_a_view(name: str, car: str, view: int) -> None:
    assert carvana.parse_name(name) == (car, view)
    assert carvana.car_of(name) == car


def test_the_name_of_kaggle_is_taken_and_its_neighbours_are_not() -> None:
    assert carvana.KAGGLE_NAME.fullmatch("0cdf5b5d0ce1_01.jpg")
    assert carvana.KAGGLE_NAME.fullmatch("0cdf5b5d0ce1_16.jpg")
    for name in (
        "0cdf5b5d0ce1_00.jpg",
        "0cdf5b5d0ce1_17.jpg",
        "0cdf5b5d0ce_01.jpg",
        "0cdf5b5d0ceG_01.jpg",
        "0CDF5B5D0CE1_01.jpg",
        "0cdf5b5d0ce1_01.png",
        "0cdf5b5d0ce1_01.jpg\n",
        "x0cdf5b5d0ce1_01.jpg",
    ):
        assert not carvana.KAGGLE_NAME.fullmatch(name)


def test_the_cars_of_some_pictures_are_each_named_once_in_order() -> None:
    assert carvana.unique_cars(["b_02.jpg", "a_01.jpg", "b_01.jpg", "c.jpg"]) == ["a", "b", "c"]


def test_pictures_are_paired_with_gif_and_png_masks_in_order_of_name() -> None:
    masks = ["a_02_mask.png", "a_01_mask.gif", "z_09_mask.gif", "notes.txt"]
    assert carvana.pair_with_masks(["a_02.jpg", "a_01.jpg"], masks) == [
        ("a_01.jpg", "a_01_mask.gif"),
        ("a_02.jpg", "a_02_mask.png"),
    ]


def test_a_picture_without_mask_is_named() -> None:
    with pytest.raises(InputError) as caught:
        carvana.pair_with_masks(["a_01.jpg", "a_02.jpg"], ["a_01_mask.gif"])
    assert "a_02.jpg" in str(caught.value)
    assert "a_01.jpg" not in str(caught.value)
    assert "1 of 2" in str(caught.value)
    assert "a_02_mask" in str(caught.value)


def test_of_many_pictures_without_mask_three_are_named_and_all_are_counted() -> None:
    with pytest.raises(InputError) as caught:
        carvana.pair_with_masks([f"a_{view:02d}.jpg" for view in range(1, 17)], [])
    message = str(caught.value)
    assert all(f"a_{view:02d}.jpg" in message for view in (1, 2, 3))
    assert "a_04.jpg" not in message
    assert "16 of 16" in message
    assert "\n" not in message


def test_three_pictures_without_mask_are_no_more_than_three() -> None:
    with pytest.raises(InputError) as caught:
        carvana.pair_with_masks(["a_01.jpg", "a_02.jpg", "a_03.jpg"], [])
    assert "..." not in str(caught.value)


@pytest.mark.parametrize(
    ("share", "total", "count"),
    [
        ("0", 10, 0),
        ("7", 10, 7),
        ("10", 10, 10),
        ("0.15", 100, 15),
        ("0.15", 318, 48),
        (".5", 10, 5),
        ("0.0", 10, 0),
        ("0.99", 10, 10),
    ],
)
def test_a_share_is_a_count_or_a_fraction(share: str, total: int, count: int) -> None:
    assert splits.resolve_count(share, total, "--x") == count


@pytest.mark.parametrize(
    "share", ["", "ten", "11", "-1", "1.0", "1.5", "-0.1", "-0.01", "nan", "inf", "1e400", "0.1.2"]
)
def test_a_share_that_is_none_names_its_flag(share: str) -> None:
    with pytest.raises(InputError, match=r"^--holdout-cars "):
        splits.resolve_count(share, 10, "--holdout-cars")


@settings(deadline=None, max_examples=100)
@given(
    cars=st.sets(st.text("abc0", min_size=1, max_size=4), min_size=3, max_size=30),
    holdout=st.sampled_from(["0", "1", "0.15", "0.3"]),
    val=st.sampled_from(["0", "1", "0.1", "0.3"]),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_a_split_is_a_partition_that_the_order_of_the_cars_does_not_change(
    cars: set[str], holdout: str, val: str, seed: int, shuffle: random.Random
) -> None:
    order = sorted(cars)
    parts = splits.split_cars(order, holdout, val, seed)
    shuffle.shuffle(order)
    assert splits.split_cars(order, holdout, val, seed) == parts
    assert sorted(car for part in parts for car in part) == sorted(cars)
    assert all(part == sorted(part) for part in parts)
    assert parts[0]


def test_no_car_is_divided() -> None:
    names = [f"{car}_{view:02d}.jpg" for car in CARS for view in range(1, 17)]
    train, val, held = splits.split_cars(carvana.unique_cars(names), "0.15", "0.1", 0)
    for part in (train, val, held):
        own = [name for name in names if carvana.car_of(name) in part]
        assert len(own) == 16 * len(part)
    assert not set(train) & set(val)
    assert not set(train) & set(held)
    assert not set(val) & set(held)


def test_counts_and_fractions_mean_what_they_say() -> None:
    assert [len(part) for part in splits.split_cars(CARS, "0.15", "0.1", 0)] == [31, 3, 6]
    assert [len(part) for part in splits.split_cars(CARS, "6", "3", 0)] == [31, 3, 6]
    assert [len(part) for part in splits.split_cars(CARS, "0", "0", 0)] == [40, 0, 0]
    assert [len(part) for part in splits.split_cars(CARS, "39", "0", 0)] == [1, 0, 39]


def test_a_fraction_and_the_count_that_it_stands_for_draw_the_same_cars() -> None:
    assert splits.split_cars(CARS, "0.15", "0.1", 5) == splits.split_cars(CARS, "6", "3", 5)


def test_a_count_above_the_cars_is_an_error_that_names_its_flag() -> None:
    with pytest.raises(InputError, match=r"^--holdout-cars 41"):
        splits.split_cars(CARS, "41", "0", 0)
    with pytest.raises(InputError, match=r"^--val-cars 5"):
        splits.split_cars(CARS[:6], "2", "5", 0)


@pytest.mark.parametrize(
    ("holdout", "val"), [("40", "0"), ("0", "40"), ("20", "20"), ("39", "0.1")]
)
def test_a_split_that_leaves_nothing_to_train_on_is_an_error(holdout: str, val: str) -> None:
    with pytest.raises(InputError, match="no car to train on"):
        splits.split_cars(CARS, holdout, val, 0)


def test_no_cars_at_all_are_an_error() -> None:
    with pytest.raises(InputError, match="no car to train on"):
        splits.split_cars([], "0", "0", 0)


def test_a_fraction_of_few_cars_still_gives_one_for_validation() -> None:
    train, val, held = splits.split_cars(CARS[:3], "0", "0.1", 0)
    assert (len(train), len(val), len(held)) == (2, 1, 0)


def test_another_seed_gives_another_split() -> None:
    parts = [splits.split_cars(CARS, "0.15", "0.1", seed) for seed in range(5)]
    assert len({str(one) for one in parts}) == 5


def test_the_split_of_seed_0_is_the_same_on_every_machine_and_day() -> None:
    # Written down once: a new release must not move cars between training and scoring.
    assert splits.split_cars(CARS[:10], "2", "2", 0)[1:] == (
        ["000000000001", "000000000005"],
        ["000000000007", "000000000008"],
    )


def test_a_list_of_names_is_held_out_and_nothing_else() -> None:
    names = [CARS[7], CARS[3]]
    for seed in range(3):
        train, val, held = splits.split_cars(CARS, names, "4", seed)
        assert held == sorted(names)
        assert len(train) == 34
        assert len(val) == 4
        assert not set(names) & {*train, *val}


def test_a_car_that_is_named_twice_is_held_out_once() -> None:
    assert splits.split_cars(CARS, [CARS[3], CARS[3]], "0", 0)[2] == [CARS[3]]


def test_a_held_out_car_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"^--holdout-cars names stranger"):
        splits.split_cars(CARS, [CARS[0], "stranger"], "0", 0)


@pytest.mark.parametrize(
    "name",
    [
        "0cdf5b5d0ce1_01.jpg",
        "red car 01.jpg",
        "Käfer grün_02.jpeg",
        "Ka\u0308fer.jpg",
        "car, red.jpg",
        "a.b.c.jpg",
        "a..b.jpg",
        "car=1+1@home-2.jpg",
        "車_01.png",
        "\N{AUTOMOBILE}.webp",
        "#1.jpg",
        "(copy) 'of' \"it\"; 100%.jpg",
        "~a.jpg",
        "_",
        "a",
        "a" * 255,
    ],
)
def test_an_ordinary_name_is_a_plain_one(name: str) -> None:
    carvana.require_safe_names([name], "here")


HOSTILE = [
    "a\u009b31m.jpg",
    "a\u2028b.jpg",
    "a\u202egpj.exe.jpg",
    "a\u2066b.jpg",
    "",
    ".",
    "..",
    "../x.jpg",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b.jpg",
    "a/",
    "a\\b.jpg",
    "..\\x.jpg",
    ".hidden.jpg",
    "-rf",
    "--out=x.jpg",
    "=cmd()|' /C calc'!A0",
    "+1.jpg",
    "@x.jpg",
    " leading.jpg",
    "\u00a0leading.jpg",
    "\ttab.jpg",
    "in\tside.jpg",
    "new\nline.jpg",
    "end.jpg\n",
    "\nfirst.jpg",
    "car\rriage.jpg",
    "zero\0.jpg",
    "bell\a.jpg",
    "colour\x1b[31m.jpg",
    "delete\x7f.jpg",
    "a" * 256,
    "a" * 300,
    "\udcff.jpg",
    "half\ud83d.jpg",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_that_is_no_plain_one_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as caught:
        carvana.require_safe_names(["a.jpg", name, "b.jpg"], "some folder")
    message = str(caught.value)
    assert message.startswith("some folder: 1 names that are no plain file names, the first is ")
    assert len(message.splitlines()) == 1
    assert message.isprintable(), "it must not do to a terminal what the name would"
    assert len(message) < 400
    message.encode()


def test_all_names_that_are_not_plain_are_counted_and_the_first_is_shown() -> None:
    with pytest.raises(InputError, match=r"^x: 2 names .* first is '\.\./a\.jpg'"):
        carvana.require_safe_names(iter(["b.jpg", "../a.jpg", "c.jpg", "=d.jpg"]), "x")


def test_no_names_are_plain_ones() -> None:
    carvana.require_safe_names([], "x")


@settings(deadline=None, max_examples=200)
@given(name=st.text(max_size=20) | st.text("./\\ab\n=", max_size=8))
def test_a_plain_name_is_one_file_of_the_folder_and_no_formula_or_flag(name: str) -> None:
    try:
        carvana.require_safe_names([name], "x")
    except InputError:
        return
    assert os.path.basename(name) == name
    assert os.path.normpath(os.path.join("/folder", name)) == f"/folder/{name}"
    assert name[0] not in "=+-@. \t"
    assert not {"\\", "\n", "\r", "\t", "\0"} & set(name)
    name.encode()
