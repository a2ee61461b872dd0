"""A model is scored on cars that it never saw: those it held out, or all new ones of other data."""

from pathlib import Path

import pytest

from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.errors import InputError
from carvana_ray.training.unseen import cars_to_score, pairs_to_score
from carvana_ray.unet.network import UNetConfig


def model_of(train: str = "", val: str = "", held: str = "") -> ModelManifest:
    """Return the manifest of a model that was trained on these cars, a letter each."""
    return ModelManifest(
        sha256="0",
        unet=UNetConfig(base=2, norm="batch"),
        downscale=8,
        height=1280,
        width=1918,
        training={},
        run="run",
        train_cars=list(train),
        val_cars=list(val),
        holdout_cars=list(held),
        metrics={},
    )


@pytest.mark.parametrize(
    ("found", "scored", "note"),
    [
        ("abcdef", "ef", ""),  # the folder that the model was trained on
        ("efxy", "ef", ""),
        ("wxyz", "wxyz", "scoring 4 cars that the model never saw"),
        ("exyz", "exyz", "scoring 4 cars that the model never saw"),
        ("acdxy", "xy", "scoring 2 cars that the model never saw; 3 cars that it was trained on "),
        ("ax", "x", "scoring 1 car that the model never saw; 1 car that it was trained on "),
    ],
)
def test_the_scored_cars_are_never_those_of_training(found: str, scored: str, note: str) -> None:
    cars, said = cars_to_score(set(found), model_of("abc", "d", "ef"), "own/train")
    assert cars == set(scored)
    assert said.startswith(note)
    assert bool(said) == bool(note)


def test_a_model_without_held_out_cars_is_scored_on_other_data_only() -> None:
    model = model_of("abc", "d")
    assert cars_to_score(set("xyz"), model, "own")[0] == set("xyz")
    with pytest.raises(InputError, match="--holdout-cars"):
        cars_to_score(set("abcd"), model, "own")


@pytest.mark.parametrize(
    ("found", "model"),
    [
        ("abcde", model_of("abc", "d", "ef")),  # the training folder, a held-out car removed
        ("xyz", model_of("", "d", "ef")),  # an older model, which does not name all it saw
    ],
)
def test_other_data_are_refused(found: str, model: ModelManifest) -> None:
    with pytest.raises(InputError, match=r"no images of some held-out cars .*of 2\)"):
        cars_to_score(set(found), model, "own/train")


def test_the_pairs_are_those_of_the_scored_cars(data: Path) -> None:
    model = model_of(held="x")
    object.__setattr__(model, "holdout_cars", ["000000000001"])
    pairs, note, cars = pairs_to_score(str(data), model)
    assert {cars.car_of(image.name) for image, _ in pairs} == {"000000000001"}
    assert [image.name for image, _ in pairs] == [
        f"000000000001_{view:02d}.jpg" for view in range(1, 9)
    ]
    assert note == ""


def test_a_model_finds_the_cars_that_it_held_out_by_the_rule_of_its_training(
    tmp_path: Path,
) -> None:
    for folder, end in (("train", ".jpg"), ("train_masks", "_mask.png")):
        (tmp_path / folder).mkdir()
        for car in "ab":
            for view in (1, 2):
                (tmp_path / folder / f"{car}_{view:02d}{end}").touch()
    model = model_of("a", held="b")  # of a version without --cars-by
    for training, names in (
        ({}, {"b_01.jpg", "b_02.jpg"}),
        ({"cars_by": "CAR_VIEW"}, {"b_01.jpg", "b_02.jpg"}),
        ({"cars_by": ""}, {"a_01.jpg", "a_02.jpg", "b_01.jpg", "b_02.jpg"}),  # other data
    ):
        object.__setattr__(model, "training", training)
        pairs, _, _ = pairs_to_score(str(tmp_path), model)
        assert {image.name for image, _ in pairs} == names
    pairs, _, _ = pairs_to_score(str(tmp_path), model, "CAR_VIEW")
    assert {image.name for image, _ in pairs} == {"b_01.jpg", "b_02.jpg"}
