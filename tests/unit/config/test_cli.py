"""From dataclass to flags: defaults, wrong usage in one line with exit code 2, and JSON."""

import dataclasses
import json
from typing import Any

import pytest
from support.flags import ALL, REQUIRED, WITHOUT_REQUIRED, usage_error

from carvana_ray import __version__, config
from carvana_ray.config import cli
from carvana_ray.errors import InputError


@pytest.mark.parametrize("kind", WITHOUT_REQUIRED)
def test_no_flags_are_the_defaults(kind: type[Any]) -> None:
    assert cli.parse(kind, "job", []) == kind()


@pytest.mark.parametrize("kind", ALL)
def test_every_field_is_a_flag_with_help(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(kind, "job", ["--help"], "examples: none")
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for field in dataclasses.fields(kind):
        assert f"  --{field.name.replace('_', '-')}" in said
        assert field.metadata["help"]
    assert "examples: none" in said
    assert kind.__doc__ in said


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(config.TrainFlags, "job", ["--version"])
    assert caught.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_every_kind_of_flag_is_read() -> None:
    words = (
        "--data d --out=o --workers 2 --device cpu --num-cpus 3 --seed 4 --limit 5 --recipe 2017"
    )
    words += " --downscale 8 --base 6 --epochs 7 --batch-size 8 --learning-rate 1e-4"
    words += " --holdout-cars 9 --val-cars .5"
    assert cli.parse(config.TrainFlags, "job", words.split()) == config.TrainFlags(
        data="d",
        out="o",
        workers=2,
        device="cpu",
        num_cpus=3,
        seed=4,
        limit=5,
        recipe="2017",
        downscale=8,
        base=6,
        epochs=7,
        batch_size=8,
        learning_rate=1e-4,
        holdout_cars="9",
        val_cars=".5",
    )


def test_a_switch_takes_no_value() -> None:
    flags = cli.parse(config.PredictFlags, "job", ["--partial", "--merge-only"])
    assert (flags.partial, flags.merge_only) == (True, True)
    assert (config.PredictFlags().partial, config.PredictFlags().merge_only) == (False, False)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("word", ["--bogus", "--bogus=1", "stray"])
def test_a_word_that_is_no_flag_is_named(
    kind: type[Any], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage_error(kind, [*REQUIRED.get(kind, []), word], capsys, word)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (config.TrainFlags, "--epoch"),
        (config.TrainFlags, "--batch"),
        (config.TrainFlags, "--learning"),
        (config.PredictFlags, "--sub"),
        (config.SampleFlags, "--see"),
        (config.CheckFlags, "--heigh"),
    ],
)
def test_an_abbreviation_is_no_flag(
    kind: type[Any], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage_error(kind, [*REQUIRED.get(kind, []), word, "2"], capsys, word)


@pytest.mark.parametrize("kind", ALL)
def test_a_flag_without_its_value_is_named(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    usage_error(kind, ["--data"], capsys, "--data")


@pytest.mark.parametrize("kind", ALL)
def test_a_configuration_goes_round_through_json(kind: type[Any]) -> None:
    one = cli.parse(kind, "job", REQUIRED.get(kind, []))
    values = json.loads(json.dumps(cli.to_json(one)))
    assert values == cli.to_json(one)
    assert kind(**values) == one


def test_pick_takes_what_two_jobs_have_in_common_and_the_changes() -> None:
    whole = config.PipelineFlags(
        out="here", seed=7, epochs=9, downscale=8, sample_cars=5, data="there"
    )
    assert cli.subset(config.TrainFlags, whole) == config.TrainFlags(
        out="here", seed=7, epochs=9, downscale=8, data="there"
    )
    assert cli.subset(config.SampleFlags, whole, out="elsewhere") == config.SampleFlags(
        out="elsewhere", seed=7, sample_cars=5
    )
    with pytest.raises(TypeError):
        cli.subset(config.SampleFlags, whole, epochs=3)
    with pytest.raises(InputError, match="--sample-cars 0"):
        cli.subset(config.SampleFlags, whole, sample_cars=0)


def test_the_flag_of_a_field() -> None:
    assert cli.flag("on_bad_picture") == "--on-bad-picture"


def test_an_unknown_decoder_names_the_two_choices(capsys: pytest.CaptureFixture[str]) -> None:
    said = usage_error(config.PredictFlags, ["--decode", "both"], capsys, "--decode")
    assert "cpu" in said
    assert "gpu" in said
