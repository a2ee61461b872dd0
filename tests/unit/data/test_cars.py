"""Cars by file name: Kaggle's, metadata.csv's, those of --cars-by, else each image is one."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carvana_ray.config.cars_flag import car_pattern
from carvana_ray.data.cars import (
    KAGGLE,
    CarNames,
    describe_cars,
    load_car_names,
    pattern_of_model,
)
from carvana_ray.errors import InputError

VIEWS = [f"0cdf5b5d0ce{car}_{view:02d}.jpg" for car in range(3) for view in range(1, 17)]


@pytest.mark.parametrize(
    ("name", "car", "view"),
    [
        ("0cdf5b5d0ce1_04.jpg", "0cdf5b5d0ce1", 4),
        ("0cdf5b5d0ce1_16.png", "0cdf5b5d0ce1", 16),
        ("0cdf5b5d0ce1_00.jpg", "0cdf5b5d0ce1_00", 0),
        ("0cdf5b5d0ce1_17.jpg", "0cdf5b5d0ce1_17", 0),
        ("0CDF5B5D0CE1_04.jpg", "0CDF5B5D0CE1_04", 0),
        ("red_car_07.png", "red_car_07", 0),
        ("photo_10.jpg", "photo_10", 0),
        ("IMG_20240501_12.jpg", "IMG_20240501_12", 0),
        ("a.b_01.jpeg", "a.b_01", 0),
        ("lonely.jpg", "lonely", 0),
        ("_04.jpg", "_04", 0),
    ],
)
def test_only_kaggle_s_names_are_cars_and_views_by_themselves(
    name: str, car: str, view: int
) -> None:
    assert KAGGLE.parse(name) == (car, view)
    assert KAGGLE.car_of(name) == car


@pytest.mark.parametrize(
    "rule",
    [KAGGLE, CarNames(car_pattern("CAR_VIEW")), CarNames(ids=frozenset(["red"]))],
    ids=["Kaggle", "pattern", "metadata"],
)
@pytest.mark.parametrize("name", ["0cdf5b5d0ce1_04.jpg", "red_07.png", "a b.jpg"])
def test_the_folder_of_a_path_is_part_of_its_car(rule: CarNames, name: str) -> None:
    car, view = rule.parse(name)
    assert rule.parse(f"a.b/monday_01/{name}") == (f"a.b/monday_01/{car}", view)


@pytest.mark.parametrize(
    "names",
    [[f"photo_{n}.jpg" for n in range(1, 121)], [f"car_{n:02d}.jpg" for n in range(1, 13)]],
    ids=["photo_1 to photo_120", "car_01 to car_12"],
)
def test_each_image_is_a_car_of_its_own(tmp_path: Path, names: list[str]) -> None:
    rule = load_car_names(str(tmp_path), "", names)
    assert len(rule.unique(names)) == len(names)
    assert describe_cars(rule, names) == (
        f"{len(names)} cars (each image is one; --cars-by groups them)"
    )


def test_a_pattern_that_would_group_the_images_is_named() -> None:
    names = [f"{car}_{view:02d}.jpg" for car in ("roadster", "sedan") for view in (1, 2, 3)]
    assert describe_cars(KAGGLE, names) == (
        "6 cars (each image is one; --cars-by CAR_VIEW makes them 2 cars)"
    )
    assert describe_cars(CarNames(car_pattern("CAR_VIEW")), names) == "2 cars"
    assert describe_cars(KAGGLE, VIEWS) == "3 cars"


@pytest.mark.parametrize(
    ("pattern", "name", "car", "view"),
    [
        ("CAR_VIEW", "red_car_07.png", "red_car", 7),
        ("CAR_VIEW", "red_car.png", "red_car", 0),
        ("CAR_VIEW", "a.b_0123.jpeg", "a.b", 123),
        ("CAR-VIEW", "a_b-3.jpg", "a_b", 3),
        ("VIEW CAR", "3 red car.jpg", "red car", 3),
        ("CAR_*", "red_front_left.jpg", "red", 0),
        ("IMG*-CAR.VIEW", "IMG 0001-audi.12.jpg", "audi", 12),
        ("CAR (VIEW", "audi (3.jpg", "", -1),
        (r"([a-z]+)", "audi7_left.jpg", "audi", 0),
        (r"(\d{6})_.*_(\d+)$", "123456_front_04.jpg", "123456", 4),
        (r"(?P<view>\d+)-(?P<car>.+)", "4-audi.jpg", "audi", 4),
        (r"(\w+?)(_left|_right)?$", "audi_left.jpg", "audi", 0),
        (r"(x)?.*", "audi.jpg", "audi", 0),
    ],
)
def test_a_pattern_gives_the_car_and_the_view(pattern: str, name: str, car: str, view: int) -> None:
    if view < 0:
        with pytest.raises(InputError, match="--cars-by"):
            car_pattern(pattern)
        return
    assert CarNames(car_pattern(pattern)).parse(name) == (car, view)


@pytest.mark.parametrize("text", ["_", "VIEW", "photo", "(", "(?P<view>.+)", "(?:a)", "(a))"])
def test_a_pattern_without_a_car_is_refused_with_the_flag(text: str) -> None:
    with pytest.raises(InputError, match=f"^--cars-by {re.escape(text)}: "):
        car_pattern(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_cars_of_metadata_csv_have_views(tmp_path: Path, encoding: str) -> None:
    table = "year,id\n2010,roadster\n2011,K\u00e4fer_2\n2012\n"
    (tmp_path / "metadata.csv").write_bytes(table.encode(encoding))
    names = ["roadster_01.jpg", "K\u00e4fer_2_16.jpg", "sedan_01.jpg", *VIEWS[:2]]
    rule = load_car_names(str(tmp_path), "", names)
    assert [rule.parse(name) for name in names] == [
        ("roadster", 1),
        ("K\u00e4fer_2", 16),
        ("sedan_01", 0),
        ("0cdf5b5d0ce0", 1),
        ("0cdf5b5d0ce0", 2),
    ]
    assert load_car_names(str(tmp_path), "CAR_VIEW", names).car_of("sedan_01.jpg") == "sedan"


def test_another_program_s_metadata_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\na_01.jpg,a car\n")
    assert load_car_names(str(tmp_path), "", ["a_01.jpg"]) == KAGGLE


def test_metadata_are_read_only_for_names_that_need_them(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"id\nK\xe4fer\n")
    assert load_car_names(str(tmp_path), "", VIEWS) == KAGGLE
    with pytest.raises(InputError, match=r"metadata\.csv: line 2: "):
        load_car_names(str(tmp_path), "", ["a_01.jpg"])


def test_a_model_of_an_older_version_keeps_its_cars() -> None:
    old = pattern_of_model("", {"seed": 0})
    assert load_car_names("", old, []).parse("cara_07.jpg") == ("cara", 7)
    assert load_car_names("", old, []).parse("photo_1.jpg") == ("photo_1", 0)
    assert [load_car_names("", old, []).parse(name) for name in VIEWS] == [
        KAGGLE.parse(name) for name in VIEWS
    ]
    assert pattern_of_model("", {"cars_by": ""}) == ""
    assert pattern_of_model("", {"cars_by": "CAR-VIEW"}) == "CAR-VIEW"
    assert pattern_of_model("CAR_VIEW", {"cars_by": "CAR-VIEW"}) == "CAR_VIEW"


@given(st.text(min_size=1), st.sampled_from(["", "CAR_VIEW", "(.+?)-", r"(.*)_(.*)"]))
def test_any_name_has_a_car(stem: str, pattern: str) -> None:
    rule = CarNames(car_pattern(pattern)) if pattern else CarNames(ids=frozenset({stem}))
    car, view = rule.parse(f"{stem}.jpg")
    assert car
    assert view >= 0
