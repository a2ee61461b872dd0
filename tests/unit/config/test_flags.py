"""What can be asked of each job, and what is refused."""

import dataclasses
from typing import Any

import pytest
from support.flags import ALL, REQUIRED, usage_error

from carvana_ray import config
from carvana_ray.config import cli, recipes
from carvana_ray.errors import InputError


def test_check_needs_a_file_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    usage_error(config.CheckFlags, [], capsys, "--submission")
    assert cli.parse(config.CheckFlags, "check", REQUIRED[config.CheckFlags]).submission == "a.csv"


def test_the_pipeline_has_the_flags_of_all_its_jobs() -> None:
    own = {field.name for field in dataclasses.fields(config.PipelineFlags)}
    for kind in (config.SampleFlags, config.TrainFlags, config.EvaluateFlags, config.PredictFlags):
        assert {field.name for field in dataclasses.fields(kind)} <= own


@pytest.mark.parametrize(
    ("kind", "flag", "value"),
    [
        (config.ModelFlags, "--device", "tpu"),
        (config.TrainFlags, "--recipe", "2018"),
        (config.PredictFlags, "--on-bad-picture", "skip"),
        (config.TrainFlags, "--seed", "x"),
        (config.TrainFlags, "--seed", "-1"),
        (config.TrainFlags, "--seed", "1.5"),
        (config.TrainFlags, "--limit", "-1"),
        (config.TrainFlags, "--workers", "0"),
        (config.TrainFlags, "--num-cpus", "0"),
        (config.TrainFlags, "--base", "0"),
        (config.TrainFlags, "--epochs", "0"),
        (config.TrainFlags, "--batch-size", "0"),
        (config.TrainFlags, "--batch-size", "sixteen"),
        (config.TrainFlags, "--downscale", "3"),
        (config.TrainFlags, "--downscale", "16"),
        (config.TrainFlags, "--downscale", "0"),
        (config.TrainFlags, "--learning-rate", "0"),
        (config.TrainFlags, "--learning-rate", "-0.1"),
        (config.TrainFlags, "--learning-rate", "1"),
        (config.TrainFlags, "--learning-rate", "nan"),
        (config.TrainFlags, "--learning-rate", "inf"),
        (config.TrainFlags, "--learning-rate", "fast"),
        (config.TrainFlags, "--out", ""),
        (config.SampleFlags, "--sample-cars", "0"),
        (config.SampleFlags, "--sample-test-cars", "-1"),
        (config.PredictFlags, "--shard-size", "-1"),
        (config.PredictFlags, "--max-bad", "-1"),
        (config.PredictFlags, "--submission", "a.txt"),
        (config.PredictFlags, "--submission", "folder/a.csv"),
        (config.PredictFlags, "--submission", ""),
        (config.PipelineFlags, "--model", "runs/a/model"),
        (config.PipelineFlags, "--merge-only", None),
        (config.PipelineFlags, "--sample-cars", "0"),
        (config.PipelineFlags, "--downscale", "5"),
        (config.PipelineFlags, "--seed", "-1"),
        (config.CutoutFlags, "--edge", "sharp"),
        (config.CutoutFlags, "--format", "jpg"),
        (config.CutoutFlags, "--on-bad-picture", "empty"),
        (config.CutoutFlags, "--submission", "a.txt"),
        (config.CutoutFlags, "--pictures", "a.jpg"),
        (config.CheckFlags, "--height", "0"),
        (config.CheckFlags, "--width", "-5"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line_that_names_the_flag(
    kind: type[Any], flag: str, value: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*REQUIRED.get(kind, []), flag, *([] if value is None else [value])]
    said = usage_error(kind, argv, capsys, flag)
    if value and flag != "--model":  # the pipeline takes none at all
        assert value in said


@pytest.mark.parametrize(
    ("kind", "values", "flag"),
    [
        (config.ModelFlags, {"device": "tpu"}, "--device tpu"),
        (config.TrainFlags, {"recipe": "2018"}, "--recipe 2018"),
        (config.TrainFlags, {"batch_size": 0}, "--batch-size 0"),
        (config.PredictFlags, {"on_bad_picture": "skip"}, "--on-bad-picture skip"),
        (config.CheckFlags, {}, "--submission"),
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
    assert dataclasses.asdict(config.TrainFlags(**values)).items() >= values.items()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.TrainFlags().seed = 1  # type: ignore[misc]


def test_the_rate_is_the_one_asked_for_or_the_recipes() -> None:
    assert config.TrainFlags().resolved_learning_rate == recipes.RECIPES["default"].learning_rate
    assert (
        config.TrainFlags(recipe="2017").resolved_learning_rate
        == recipes.RECIPES["2017"].learning_rate
    )
    assert config.TrainFlags(learning_rate=0.5).resolved_learning_rate == 0.5


def test_every_recipe_can_be_asked_for() -> None:
    for name in recipes.RECIPES:
        assert cli.parse(config.TrainFlags, "job", ["--recipe", name]).recipe == name


def test_the_model_is_the_one_asked_for_or_the_one_under_out() -> None:
    assert config.EvaluateFlags(out="runs/a/").model_uri == "runs/a/model"
    assert config.PredictFlags(out="runs/a", model="b").model_uri == "b"


def test_pictures_to_cut_out_are_named_alone_one_or_several() -> None:
    flags = cli.parse(config.CutoutFlags, "job", ["a.jpg", "b", "--edge", "hard"])
    assert flags == config.CutoutFlags(pictures=("a.jpg", "b"), edge="hard")
    assert (
        cli.parse(config.CutoutFlags, "job", ["--pictures", "a.jpg", "b"]).pictures
        == flags.pictures
    )
    assert cli.parse(config.CutoutFlags, "job", ["--data", "d"]).pictures == ()


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
        config.CutoutFlags(**values)


def test_edges_are_soft_where_the_network_can_say() -> None:
    assert config.CutoutFlags(data="d").soft
    assert not config.CutoutFlags(data="d", edge="hard").soft
    assert not config.CutoutFlags(data="d", submission="a.csv").soft
    assert not config.CutoutFlags(data="d", mask_only=True).soft
    assert config.CutoutFlags(data="d", mask_only=True, edge="soft").soft


@pytest.mark.parametrize("kind", ALL)
def test_quiet_and_verbose_do_not_go_together(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for one in ("--quiet", "--verbose"):
        assert getattr(cli.parse(kind, "job", [*REQUIRED.get(kind, []), one]), one[2:])
    usage_error(
        kind, [*REQUIRED.get(kind, []), "--quiet", "--verbose"], capsys, "--quiet, --verbose"
    )
