"""The top of the page: run and data set, the verdict, a scale of reference values, the model."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from carvana_ray.report.verdict import (
    CEILING,
    RECIPES,
    Verdict,
    judge_cutouts,
    judge_dice,
    judge_unscored,
)
from carvana_ray.runtime.wording import count_of

SCALE_WIDTH = 400  # units of the drawing
NAME_WIDTH = 46  # of the longest name on the scale
WORST_ERROR, LEAST_ERROR = 0.1, 0.0004  # 1 - Dice at the left and the right end of the scale
FOLDERS_OF_A_DATA_SET = "train", "test", "train_hq", "test_hq"

Part = dict[str, Any]


class Tick(NamedTuple):
    """A place on the scale: distance from the left end, name, Dice, line of its text."""

    x: float
    name: str
    dice: str
    line: int = 0


class Scale(NamedTuple):
    """The mean Dice of a run among reference values."""

    own: Tick
    recipes: list[Tick]
    ceiling: Tick


class Headline(NamedTuple):
    """The top of the page.

    Attributes:
        run, data: names of the run and of its data set.
        verdict: about all masks.
        scale: None without true masks.
        notes: sentences in smaller letters.
    """

    run: str
    data: str
    verdict: Verdict
    scale: Scale | None
    notes: list[str]


def headline(parts: Mapping[str, Part]) -> Headline:
    """Return the top of the page of some parts, not of a pipeline alone."""
    evaluation, prediction = parts.get("evaluate"), parts.get("predict")
    notes = []
    if "cutout" in parts:
        made = parts["cutout"]
        verdict = judge_cutouts(made["finished"], made["looked"], made["listed"])
        if evaluation or prediction:
            notes.append(f"Cut-outs: {verdict.sentence}")
    if prediction:
        review = prediction["review"]
        verdict = judge_unscored(review["listed"], review["looked"])
        if evaluation:
            notes.append(f"Prediction without true masks: {verdict.sentence}")
        if bad := prediction["result"]["bad"]:
            lost = "" if prediction["result"]["submission"] else "; no submission was written"
            notes.append(f"{count_of(bad, 'images')} could not be used{lost}.")
    scale = None
    if evaluation:
        dice = float(np.mean([row[3] for row in evaluation["scores"]]))
        ceiling = float(np.mean([row[4] for row in evaluation["scores"]]))
        verdict, scale = judge_dice(dice), place_on_scale(dice, ceiling)
    notes.append(_describe(parts))
    run = _unique(
        _last_name(_lineage(part, "configuration of this job", "out")) for part in parts.values()
    )
    data = _unique(_data_set(_lineage(part, "data", "folder")) for part in parts.values())
    return Headline(run or "Cars cut out", data, verdict, scale, notes)


def place_on_scale(dice: float, ceiling: float = CEILING.dice) -> Scale:
    """Return where a mean Dice is among the reference values; `ceiling` is that of its images."""
    known = [(name, value, f"{value:.3f}") for name, value in RECIPES]
    *recipes, last = _in_lines([*known, (CEILING.name, ceiling, f"{ceiling:.4f}")])
    return Scale(Tick(_place(dice), "this model", f"{dice:.4f}"), recipes, last)


def _in_lines(texts: Iterable[tuple[str, float, str]]) -> list[Tick]:
    """Return ticks of (name, Dice, Dice in words), each on the first line where its text fits."""
    ticks: list[Tick] = []
    for name, dice, words in texts:
        x = _place(dice)
        taken = {tick.line for tick in ticks if abs(x - tick.x) < NAME_WIDTH}
        line = next(line for line in itertools.count() if line not in taken)
        ticks.append(Tick(x, name, words, line))
    return ticks


def _place(dice: float) -> float:
    """Return the distance of a Dice from the left end: equal steps divide the error equally."""
    error = min(max(1 - dice, LEAST_ERROR), WORST_ERROR)
    fraction = math.log(WORST_ERROR / error) / math.log(WORST_ERROR / LEAST_ERROR)
    return round(SCALE_WIDTH * fraction, 1)


def _describe(parts: Mapping[str, Part]) -> str:
    """Return what was done with which model, when, and by which code."""
    facts = []
    if "evaluate" in parts:
        scores = parts["evaluate"]["scores"]
        cars = count_of(len({row[1] for row in scores}), "cars")
        facts.append(f"{count_of(len(scores), 'images')} of {cars} scored")
    if "predict" in parts:
        facts.append(f"{count_of(parts['predict']['result']['images'], 'images')} predicted")
    newest = max(parts.values(), key=lambda part: str(part.get("made", "")))
    if "cutout" in parts:
        facts.append(count_of(parts["cutout"]["finished"], "cut-outs"))
    recipe = _lineage(newest, "configuration of its training", "recipe")
    if newest["model"]:
        facts.append(f"model {newest['model'][:12]}" + (f" (recipe {recipe})" if recipe else ""))
    facts.append(str(newest["made"]))
    if commit := _lineage(newest, "versions", "commit"):
        changed = " with changes" if commit.endswith("-dirty") else ""
        facts.append(f"code {commit[:12]}{changed}")
    return " \N{MIDDLE DOT} ".join(facts)


def _lineage(part: Part, group: str, name: str) -> str:
    return str(part.get("lineage", {}).get(group, {}).get(name) or "")


def _last_name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _data_set(folder: str) -> str:
    """Return the name of a data set: that of the folder above ``train`` or ``test``."""
    above, _, name = folder.rstrip("/").rpartition("/")
    return _last_name(above) or name if name in FOLDERS_OF_A_DATA_SET else name


def _unique(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(name for name in names if name))
