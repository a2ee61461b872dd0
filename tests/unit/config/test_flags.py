"""What can be asked of each job, and what is refused."""

import dataclasses
from typing import Any

import pytest
from test_cli import ALL, NEEDED, refused

from carvana_ray import config
from carvana_ray.config import cli, recipes
from carvana_ray.errors import InputError


def test_check_needs_a_file_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    refused(config.Check, [], capsys, "--submission")
    assert cli.parse(config.Check, "check", NEEDED[config.Check]).submission == "a.csv"


def test_the_pipeline_has_the_flags_of_all_its_jobs() -> None:
    own = {field.name for field in dataclasses.fields(config.Pipeline)}
    for kind in (config.Sample, config.Train, config.Evaluate, config.Predict):
        assert {field.name for field in dataclasses.fields(kind)} <= own


@pytest.mark.parametrize(
    ("kind", "flag", "value"),
    [
        (config.Network, "--device", "tpu"),
        (config.Train, "--recipe", "2018"),
        (config.Predict, "--on-bad-picture", "skip"),
        (config.Train, "--seed", "x"),
        (config.Train, "--seed", "-1"),
        (config.Train, "--seed", "1.5"),
        (config.Train, "--limit", "-1"),
        (config.Train, "--workers", "0"),
        (config.Train, "--num-cpus", "0"),
        (config.Train, "--base", "0"),
        (config.Train, "--epochs", "0"),
        (config.Train, "--batch-size", "0"),
        (config.Train, "--batch-size", "sixteen"),
        (config.Train, "--downscale", "3"),
        (config.Train, "--downscale", "16"),
        (config.Train, "--downscale", "0"),
        (config.Train, "--learning-rate", "0"),
        (config.Train, "--learning-rate", "-0.1"),
        (config.Train, "--learning-rate", "1"),
        (config.Train, "--learning-rate", "nan"),
        (config.Train, "--learning-rate", "inf"),
        (config.Train, "--learning-rate", "fast"),
        (config.Train, "--out", ""),
        (config.Sample, "--sample-cars", "0"),
        (config.Sample, "--sample-test-cars", "-1"),
        (config.Predict, "--shard-size", "-1"),
        (config.Predict, "--max-bad", "-1"),
        (config.Predict, "--submission", "a.txt"),
        (config.Predict, "--submission", "folder/a.csv"),
        (config.Predict, "--submission", ""),
        (config.Pipeline, "--model", "runs/a/model"),
        (config.Pipeline, "--merge-only", None),
        (config.Pipeline, "--sample-cars", "0"),
        (config.Pipeline, "--downscale", "5"),
        (config.Pipeline, "--seed", "-1"),
        (config.Cutout, "--edge", "sharp"),
        (config.Cutout, "--format", "jpg"),
        (config.Cutout, "--on-bad-picture", "empty"),
        (config.Cutout, "--submission", "a.txt"),
        (config.Cutout, "--pictures", "a.jpg"),
        (config.Check, "--height", "0"),
        (config.Check, "--width", "-5"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line_that_names_the_flag(
    kind: type[Any], flag: str, value: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*NEEDED.get(kind, []), flag, *([] if value is None else [value])]
    said = refused(kind, argv, capsys, flag)
    if value and flag != "--model":  # the pipeline takes none at all
        assert value in said


@pytest.mark.parametrize(
    ("kind", "values", "flag"),
    [
        (config.Network, {"device": "tpu"}, "--device tpu"),
        (config.Train, {"recipe": "2018"}, "--recipe 2018"),
        (config.Train, {"batch_size": 0}, "--batch-size 0"),
        (config.Predict, {"on_bad_picture": "skip"}, "--on-bad-picture skip"),
        (config.Check, {}, "--submission"),
    ],
)
def test_a_bad_value_is_refused_whoever_builds_the_object(
    kind: type[Any], values: dict[str, Any], flag: str
) -> None:
    with pytest.raises(InputError, match=f"^{flag}"):
        kind(**values)


@pytest.mark.parametrize(
    "values", [{"downscale": d} for d in (1, 2, 4, 8)] + [{"learning_rate": 0.999}, {"workers": 1}]
)
def test_values_at_the_edge_are_taken(values: dict[str, Any]) -> None:
    assert dataclasses.asdict(config.Train(**values)).items() >= values.items()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Train().seed = 1  # type: ignore[misc]


def test_the_rate_is_the_one_asked_for_or_the_recipes() -> None:
    assert config.Train().rate == recipes.RECIPES["default"].learning_rate
    assert config.Train(recipe="2017").rate == recipes.RECIPES["2017"].learning_rate
    assert config.Train(learning_rate=0.5).rate == 0.5


def test_every_recipe_can_be_asked_for() -> None:
    for name in recipes.RECIPES:
        assert cli.parse(config.Train, "job", ["--recipe", name]).recipe == name


def test_the_model_is_the_one_asked_for_or_the_one_under_out() -> None:
    assert config.Evaluate(out="runs/a/").model_uri == "runs/a/model"
    assert config.Predict(out="runs/a", model="b").model_uri == "b"


def test_pictures_to_cut_out_are_named_alone_one_or_several() -> None:
    flags = cli.parse(config.Cutout, "job", ["a.jpg", "b", "--edge", "hard"])
    assert flags == config.Cutout(pictures=("a.jpg", "b"), edge="hard")
    assert cli.parse(config.Cutout, "job", ["--pictures", "a.jpg", "b"]).pictures == flags.pictures
    assert cli.parse(config.Cutout, "job", ["--data", "d"]).pictures == ()


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({}, "--data"),
        ({"pictures": ("a.jpg",), "data": "d"}, "--pictures a.jpg, --data d"),
        ({"data": "d", "submission": "a.csv", "model": "m"}, "--submission, --model"),
        ({"data": "d", "submission": "a.csv", "edge": "soft"}, "--edge soft"),
        ({"data": "d", "mask_only": True, "format": "webp"}, "--mask-only"),
        ({"data": "d", "mask_only": True, "background": "red"}, "--mask-only"),
    ],
)
def test_flags_of_a_cut_out_that_exclude_one_another(values: dict[str, Any], flag: str) -> None:
    with pytest.raises(InputError, match=f"^{flag}"):
        config.Cutout(**values)


def test_edges_are_soft_where_the_network_can_say() -> None:
    assert config.Cutout(data="d").soft
    assert not config.Cutout(data="d", edge="hard").soft
    assert not config.Cutout(data="d", submission="a.csv").soft
    assert not config.Cutout(data="d", mask_only=True).soft
    assert config.Cutout(data="d", mask_only=True, edge="soft").soft


@pytest.mark.parametrize("kind", ALL)
def test_quiet_and_verbose_do_not_go_together(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for one in ("--quiet", "--verbose"):
        assert getattr(cli.parse(kind, "job", [*NEEDED.get(kind, []), one]), one[2:])
    refused(kind, [*NEEDED.get(kind, []), "--quiet", "--verbose"], capsys, "--quiet, --verbose")
