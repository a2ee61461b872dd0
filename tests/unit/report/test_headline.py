"""The top of the page: names of run and data, the verdict, places on the scale."""

import itertools
import math

import pytest
from support.report_parts import SHA, both, evaluation, prediction

from carvana_ray.report import headline as module
from carvana_ray.report.headline import headline, place_on_scale


def with_lineage(part: dict, out: str, folder: str) -> dict:
    lineage = {"configuration of this job": {"out": out}, "data": {"folder": folder}}
    return {**part, "lineage": lineage}


@pytest.mark.parametrize(
    ("out", "folder", "run", "data"),
    [
        ("runs/first", "/data/carvana/train", "first", "carvana"),
        ("s3://bucket/runs/first/", "s3://bucket/carvana/test/", "first", "carvana"),
        ("first", "/photos/monday", "first", "monday"),
        ("first", "train", "first", "train"),
        ("", "", "Cars cut out", ""),
    ],
)
def test_a_page_is_named_after_its_run_and_its_data(
    out: str, folder: str, run: str, data: str
) -> None:
    top = headline({"evaluate": with_lineage(evaluation(), out, folder)})
    assert (top.run, top.data) == (run, data)


def test_train_and_test_of_one_data_set_have_one_name_and_two_data_sets_two() -> None:
    def names(train: str, test: str) -> str:
        parts = {
            "evaluate": with_lineage(evaluation(), "a", train),
            "predict": with_lineage(prediction(), "a", test),
        }
        return headline(parts).data

    assert names("/d/carvana/train", "/d/carvana/test") == "carvana"
    assert names("/d/carvana/train", "/d/photos") == "carvana and photos"


def test_dice_decides_the_verdict_and_unusual_masks_are_a_note() -> None:
    parts = both()
    parts["evaluate"]["scores"] = [
        [*row[:3], 0.944, *row[4:]] for row in parts["evaluate"]["scores"]
    ]
    parts["predict"]["review"] |= {"listed": 4, "looked": 128}
    top = headline(parts)
    assert top.verdict.sentence.startswith("Poor masks: mean Dice 0.9440")
    assert "4 of 128 masks look unusual: check these first." in top.notes[0]
    assert top.scale
    assert (top.scale.own.dice, top.scale.ceiling.dice) == ("0.9440", "0.9994")


def test_a_prediction_alone_has_no_grade_and_no_scale() -> None:
    part = prediction()
    part["review"] |= {"listed": 4, "looked": 128}
    top = headline({"predict": part})
    assert top.verdict.sentence == "4 of 128 masks look unusual: check these first."
    assert top.scale is None


@pytest.mark.parametrize(
    ("bad", "submission", "notes"),
    [
        (0, "x.csv", []),
        (1, None, ["1 image could not be used; no submission was written."]),
        (2, "x.csv", ["2 images could not be used."]),
    ],
)
def test_bad_images_are_named_at_the_top(
    bad: int, submission: str | None, notes: list[str]
) -> None:
    part = prediction()
    part["result"] |= {"bad": bad, "submission": submission}
    assert headline({"predict": part}).notes[:-1] == notes


def test_a_note_names_the_model_its_recipe_the_time_and_the_code_where_known() -> None:
    part = evaluation()
    assert headline({"evaluate": part}).notes[-1].endswith(f"model {SHA[:12]} · {part['made']}")
    part["lineage"] |= {
        "configuration of its training": {"recipe": "best"},
        "versions": {"commit": "0123456789abcdef"},
    }
    note = headline({"evaluate": part}).notes[-1]
    assert f"model {SHA[:12]} (recipe best)" in note
    assert note.endswith("code 0123456789ab")
    part["lineage"]["versions"]["commit"] += "-dirty"
    assert headline({"evaluate": part}).notes[-1].endswith("code 0123456789ab with changes")
    part["lineage"]["versions"]["commit"] = "0123456789abcdef"
    pipeline = {"model": SHA, "seconds": {}}  # it says neither when nor with what it was made
    assert headline({"evaluate": part, "pipeline": pipeline}).notes[-1] == note


def test_halving_the_error_is_the_same_step_everywhere_on_the_scale() -> None:
    places = [place_on_scale(1 - error).own.x for error in (0.08, 0.04, 0.02, 0.01, 0.005)]
    steps = [after - before for before, after in itertools.pairwise(places)]
    step = module.SCALE_WIDTH * math.log(2) / math.log(module.WORST_ERROR / module.LEAST_ERROR)
    assert steps == pytest.approx([step] * 4, abs=0.2)
    for dice, place in ((0.0, 0), (0.9, 0), (1.0, module.SCALE_WIDTH)):
        assert place_on_scale(dice).own.x == place, "what is beyond an end is at the end"


@pytest.mark.parametrize("ceiling", [0.97, 0.985, 0.99, 0.9954, 0.998, 0.9994, 1.0])
def test_names_on_the_scale_do_not_overlap(ceiling: float) -> None:
    scale = place_on_scale(0.95, ceiling)
    ticks = [*scale.recipes, scale.ceiling]
    for one, other in itertools.combinations(ticks, 2):
        assert one.line != other.line or abs(one.x - other.x) > 38, "names take up to 46 units"
