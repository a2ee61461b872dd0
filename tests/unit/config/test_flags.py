"""The flags of each job: valid and invalid values."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from support.flags import ALL, REQUIRED, usage_error

import carvana_ray
from carvana_ray import config
from carvana_ray.config import cli, predict_flags, recipes
from carvana_ray.errors import InputError


def test_check_requires_a_submission(capsys: pytest.CaptureFixture[str]) -> None:
    usage_error(config.CheckFlags, [], capsys, "--submission")
    assert cli.parse(config.CheckFlags, "check", REQUIRED[config.CheckFlags]).submission == "a.csv"


def test_review_requires_a_folder_and_the_name_of_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage_error(config.ReviewFlags, [], capsys, "--out is missing")
    usage_error(config.ReviewFlags, ["o", "--submission", "a/s.csv"], capsys, "--submission a/s")
    usage_error(config.ReviewFlags, ["o", "--to", "o/"], capsys, "--to o/: must be another folder")
    assert config.ReviewFlags(out="runs/first/").to_uri == "runs/first/review"
    assert config.ReviewFlags(out="runs/first", to="x").to_uri == "x"


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
        (config.PredictFlags, "--submission", ".csv"),
        (config.PredictFlags, "--submission", ".draft-a.csv.gz"),
        (config.PredictFlags, "--submission", "review.csv"),
        (config.PredictFlags, "--submission", "Evaluation.csv"),
        (config.PredictFlags, "--submission", "SAMPLE_submission.csv"),
        (config.PredictFlags, "--submission", "config.csv.gz"),  # its marker: config.json
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
def test_an_invalid_value_is_a_usage_error_that_names_the_flag(
    kind: type[Any], flag: str, value: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*REQUIRED.get(kind, []), flag, *([] if value is None else [value])]
    error = usage_error(kind, argv, capsys, flag)
    if value and flag != "--model":  # the pipeline accepts no model
        assert value in error


@pytest.mark.parametrize(
    ("kind", "values", "flag"),
    [
        (config.ModelFlags, {"device": "tpu"}, "--device tpu"),
        (config.TrainFlags, {"recipe": "2018"}, "--recipe 2018"),
        (config.TrainFlags, {"encoder": "lite0", "recipe": "2017"}, "--encoder lite0"),
        (config.TrainFlags, {"batch_size": 0}, "--batch-size 0"),
        (config.PredictFlags, {"on_bad_picture": "skip"}, "--on-bad-picture skip"),
        (config.CheckFlags, {}, "--submission"),
    ],
)
def test_an_invalid_value_is_refused_in_python_too(
    kind: type[Any], values: dict[str, Any], flag: str
) -> None:
    with pytest.raises(InputError, match=f"^{flag}"):
        kind(**values)


@pytest.mark.parametrize(
    "values", [{"downscale": d} for d in (1, 2, 4, 8)] + [{"learning_rate": 0.999}, {"workers": 1}]
)
def test_values_at_the_limits_are_valid(values: dict[str, Any]) -> None:
    assert dataclasses.asdict(config.TrainFlags(**values)).items() >= values.items()


def test_no_file_of_the_program_or_of_kaggle_is_a_valid_name_of_a_submission() -> None:
    sources = [path.read_text() for path in Path(carvana_ray.__file__).parent.rglob("*.py")]
    written = {name for source in sources for name in re.findall(r'"(\w+)\.(?:csv|json)"', source)}
    elsewhere = {"_SUCCESS", "quarantine", "_cutouts", "_cars", "_review", "manifest", "history"}
    elsewhere |= {"direct_url", "predict"}  # the latter in receipts/
    elsewhere |= {"coco"}  # in the folder of a review
    assert written - elsewhere - {"submission"} == predict_flags.TAKEN_NAMES


def test_a_submission_has_a_marker_of_its_name() -> None:
    for name in ("a.csv", "a.csv.gz"):
        values = config.PredictFlags(out="runs/x/", submission=name)
        assert values.submission_uri == f"runs/x/{name}"
        assert values.marker_uri == "runs/x/a.json"
    assert config.PredictFlags(submission="review.old.csv").marker_uri.endswith("/review.old.json")


def test_flags_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.TrainFlags().seed = 1  # type: ignore[misc]


def test_the_learning_rate_is_that_of_the_flag_or_the_recipe() -> None:
    assert config.TrainFlags().resolved_learning_rate == recipes.RECIPES["default"].learning_rate
    assert (
        config.TrainFlags(recipe="2017").resolved_learning_rate
        == recipes.RECIPES["2017"].learning_rate
    )
    assert config.TrainFlags(learning_rate=0.5).resolved_learning_rate == 0.5


def test_every_recipe_is_a_choice() -> None:
    for name in recipes.RECIPES:
        assert cli.parse(config.TrainFlags, "job", ["--recipe", name]).recipe == name


def test_the_model_is_that_of_the_flag_or_the_one_under_out() -> None:
    assert config.EvaluateFlags(out="runs/a/").model_uri == "runs/a/model"
    assert config.PredictFlags(out="runs/a", model="b").model_uri == "b"


def test_images_to_cut_out_are_named_with_or_without_the_flag() -> None:
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
def test_cutout_flags_that_exclude_one_another(values: dict[str, Any], flag: str) -> None:
    with pytest.raises(InputError, match=f"^{flag}"):
        config.CutoutFlags(**values)


def test_edges_are_soft_by_default_except_for_masks() -> None:
    assert config.CutoutFlags(data="d").soft
    assert not config.CutoutFlags(data="d", edge="hard").soft
    assert not config.CutoutFlags(data="d", submission="a.csv").soft
    assert not config.CutoutFlags(data="d", mask_only=True).soft
    assert config.CutoutFlags(data="d", mask_only=True, edge="soft").soft


@pytest.mark.parametrize("kind", ALL)
def test_quiet_and_verbose_exclude_each_other(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    required = REQUIRED.get(kind, [])
    for name in ("--quiet", "--verbose"):
        assert getattr(cli.parse(kind, "job", [*required, name]), name[2:])
    usage_error(kind, [*required, "--quiet", "--verbose"], capsys, "--quiet, --verbose")
