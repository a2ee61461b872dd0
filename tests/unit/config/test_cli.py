"""Flags of a dataclass: defaults, help, usage errors in one line with exit code 2, and JSON."""

import dataclasses
import json
import re
from typing import Any

import pytest
from support.flags import ALL, REQUIRED, WITHOUT_REQUIRED, usage_error

from carvana_ray import __version__, config
from carvana_ray.config import cli
from carvana_ray.errors import InputError


@pytest.mark.parametrize("kind", WITHOUT_REQUIRED)
def test_without_flags_all_fields_have_their_defaults(kind: type[Any]) -> None:
    assert cli.parse(kind, "job", []) == kind()


@pytest.mark.parametrize("kind", ALL)
def test_every_field_is_a_flag_with_help(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(kind, "job", ["--help"], "examples: none")
    assert caught.value.code == 0
    output = capsys.readouterr().out
    for field in dataclasses.fields(kind):
        assert f"  --{field.name.replace('_', '-')}" in output
        assert field.metadata["help"]
    assert "examples: none" in output
    assert all(line.strip() in output for line in kind.__doc__.splitlines())


@pytest.mark.parametrize("kind", ALL)
def test_every_flag_has_a_group_and_the_name_of_its_value(kind: type[Any]) -> None:
    for field in dataclasses.fields(kind):
        assert field.metadata["group"] in cli.GROUPS
        if field.type is str:
            assert field.metadata["metavar"] != "N", field.name


def test_help_lists_the_flags_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(config.CutoutFlags, "carvana-ray cutout", ["--help"])
    output = capsys.readouterr().out
    assert output.startswith("usage: carvana-ray cutout [IMAGE ...] [flags]\n")
    titles = re.findall(r"^(\w+):$", output, re.MULTILINE)
    assert titles == ["input", "model", "output", "machine", "log", "help"]
    flags = output.split("\noutput:\n")[1].split("\nmachine:\n")[0]
    assert "--background COLOR|FILE" in flags
    assert "--model" not in flags


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(config.TrainFlags, "job", ["--version"])
    assert caught.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_every_type_of_flag_is_parsed() -> None:
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


def test_a_boolean_flag_takes_no_value() -> None:
    flags = cli.parse(config.PredictFlags, "job", ["--partial", "--merge-only"])
    assert (flags.partial, flags.merge_only) == (True, True)
    assert (config.PredictFlags().partial, config.PredictFlags().merge_only) == (False, False)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("word", ["--bogus", "--bogus=1", "stray"])
def test_an_unknown_flag_or_word_is_named(
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
def test_an_abbreviated_flag_is_an_error(
    kind: type[Any], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage_error(kind, [*REQUIRED.get(kind, []), word, "2"], capsys, word)


@pytest.mark.parametrize(
    ("kind", "word", "end"),
    [
        (config.TrainFlags, "--epoch", "--epoch; did you mean --epochs? (see job --help)"),
        (config.TrainFlags, "--epoch=3", "--epoch=3; did you mean --epochs? (see job --help)"),
        (config.PredictFlags, "--shardsize", "did you mean --shard-size? (see job --help)"),
        (config.TrainFlags, "--zzz", "unrecognized flag --zzz (see job --help)"),
    ],
)
def test_a_mistyped_flag_brings_the_nearest_one(
    kind: type[Any], word: str, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(kind, [word], capsys, word).endswith(f"{end}\n")


def test_images_may_stand_before_between_and_after_flags() -> None:
    words = ["a.jpg", "--edge", "hard", "b.jpg", "c.jpg", "--limit", "2", "d.jpg"]
    flags = cli.parse(config.CutoutFlags, "job", words)
    assert flags.pictures == ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert cli.parse(config.CutoutFlags, "job", ["--limit", "2", "a.jpg"]).pictures == ("a.jpg",)


@pytest.mark.parametrize("kind", ALL)
def test_a_flag_without_its_value_is_named(
    kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    usage_error(kind, ["--data"], capsys, "--data")


@pytest.mark.parametrize("kind", ALL)
def test_flags_round_trip_through_json(kind: type[Any]) -> None:
    flags = cli.parse(kind, "job", REQUIRED.get(kind, []))
    values = json.loads(json.dumps(cli.to_json(flags)))
    assert values == cli.to_json(flags)
    assert kind(**values) == flags


@pytest.mark.parametrize(
    "flags",
    [
        config.PredictFlags(),
        config.PredictFlags(data="a b", limit=3, partial=True, on_bad_picture="empty", workers=2),
        config.CutoutFlags(pictures=("a b.jpg", "c.jpg"), recursive=False, background="-x.png"),
        config.TrainFlags(data="d", holdout_cars="-odd", learning_rate=0.01),
        config.ReviewFlags(out="runs/first"),
    ],
)
def test_the_words_of_flags_are_parsed_to_the_same_flags(flags: Any) -> None:
    assert cli.parse(type(flags), "job", cli.to_words(flags)) == flags


def test_flags_at_their_defaults_need_no_words() -> None:
    assert cli.to_words(config.CutoutFlags(data="d")) == ["--data", "d"]
    assert cli.to_words(config.PredictFlags(data="d", quiet=True)) == ["--quiet", "--data", "d"]


def test_subset_has_the_shared_fields_and_the_changes() -> None:
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


def test_a_flag_that_is_on_by_default_can_be_turned_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recursive(*words: str) -> bool:
        return cli.parse(config.CutoutFlags, "job", ["photos", *words]).recursive

    assert (recursive(), recursive("--recursive"), recursive("--no-recursive")) == (1, 1, 0)
    usage_error(config.CutoutFlags, ["--no-recursiv"], capsys, "did you mean --no-recursive?")
    with pytest.raises(SystemExit):
        recursive("--help")
    assert capsys.readouterr().out.count("(default: on)") == 1


def test_the_flag_of_a_field() -> None:
    assert cli.flag("on_bad_picture") == "--on-bad-picture"


def test_an_unknown_decoder_names_the_two_choices(capsys: pytest.CaptureFixture[str]) -> None:
    error = usage_error(config.PredictFlags, ["--decode", "both"], capsys, "--decode")
    assert "cpu" in error
    assert "gpu" in error
