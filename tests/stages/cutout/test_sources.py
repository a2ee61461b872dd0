"""The cars of the images of a cut-out job: by --cars-by, by the model's, or by metadata.csv."""

from pathlib import Path

from carvana_ray import config
from carvana_ray.data.collect import CollectedImages
from carvana_ray.stages.cutout import sources
from carvana_ray.storage import FileInfo

OUTPUTS = {
    "a/-red_1.jpg": "a/_red_1",
    "a/-red_2.jpg": "a/_red_2",
    "b/-red_1.jpg": "b/_red_1",
    "blue_1.png": "blue_1",
}
FOUND = CollectedImages("/photos", [FileInfo(name, 1, "1") for name in OUTPUTS], OUTPUTS)


def flags_of(data: str = "photos", cars_by: str = "") -> config.CutoutFlags:
    return config.CutoutFlags(data=data, submission="rows.csv", cars_by=cars_by)


def test_a_pattern_of_the_command_comes_before_that_of_the_model() -> None:
    assert sources.cars_by(flags_of(), {}) == ""
    assert sources.cars_by(flags_of(), {"cars_by": "CAR-VIEW"}) == "CAR-VIEW"
    assert sources.cars_by(flags_of(cars_by="CAR_VIEW"), {"cars_by": "CAR-VIEW"}) == "CAR_VIEW"


def test_a_car_is_of_the_folder_of_its_cutouts(tmp_path: Path) -> None:
    rule = sources.car_names(flags_of(str(tmp_path)), "CAR_VIEW", FOUND)
    cars = {name: rule.car_of(sources.path_of(name, FOUND)) for name in OUTPUTS}
    assert list(cars.values()) == ["a/-red", "a/-red", "b/-red", "blue"]


def test_cars_of_metadata_are_those_of_the_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("id,color\n-red,red\n")
    found = CollectedImages(
        str(tmp_path), [FileInfo("-red_01.jpg", 1, "1"), FileInfo("blue_01.jpg", 1, "1")], {}
    )
    rule = sources.car_names(flags_of(str(tmp_path)), "", found)
    assert rule.unique(["-red_01.jpg", "-red_02.jpg", "blue_01.jpg"]) == ["-red", "blue_01"]


def test_all_views_are_those_of_the_cars_of_some_images(tmp_path: Path) -> None:
    rule = sources.car_names(flags_of(str(tmp_path)), "CAR_VIEW", FOUND)
    first = FOUND.entries[:1]
    assert sources.all_views(rule, FOUND, first, "") == FOUND.entries[:2]
    assert sources.all_views(rule, FOUND, FOUND.entries, "") == FOUND.entries
    assert sources.all_views(None, FOUND, first, "") == first
