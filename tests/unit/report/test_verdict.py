"""The verdict in words: its grades change where they should, and it claims nothing unknown."""

import re
from pathlib import Path

import pytest

from carvana_ray.report.verdict import CEILING, RECIPES, judge_dice, judge_unscored

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    ("dice", "word"),
    [
        *((1.0, "Excellent"), (0.995, "Excellent"), (0.99495, "Excellent"), (0.9949, "Good")),
        *((0.99, "Good"), (0.9899, "Fair"), (0.98, "Fair"), (0.9799, "Weak"), (0.95, "Weak")),
        *((0.9499, "Poor"), (0.944, "Poor"), (0.8, "Poor"), (0.7999, "Unusable")),
        *((0.37, "Unusable"), (0.0, "Unusable")),
    ],
)
def test_dice_has_a_word_and_a_sentence_that_begins_with_it(dice: float, word: str) -> None:
    verdict = judge_dice(dice)
    assert verdict.word == word
    assert verdict.sentence.startswith(f"{word} masks: mean Dice {dice:.4f}")
    assert "real photographs" in verdict.sentence, "the reference is named"
    assert ("a good model of this kind reaches 0.99" in verdict.sentence) == (dice < 0.99)


def test_grades_never_fall_when_dice_rises() -> None:
    order = ["Unusable", "Poor", "Weak", "Fair", "Good", "Excellent"]
    ranks = [order.index(judge_dice(step / 5000).word) for step in range(5001)]
    assert ranks == sorted(ranks)
    assert set(ranks) == set(range(6))


def test_reference_values_are_those_of_the_documents() -> None:
    table = (DOCS / "recipes.md").read_text(encoding="utf-8")
    names = re.search(r"^\| \| (.*) \|$", table, re.M)[1].replace("`", "").split(" | ")
    dice = re.search(r"^\| \*\*Dice, .*? \| (.*) \|$", table, re.M)[1].replace("*", "").split(" | ")
    found = {name: float(text.split()[0]) for name, text in zip(names, dice, strict=True)}
    assert found == {reference.name: reference.dice for reference in RECIPES}
    benchmarks = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert f"mask to grid and back | mean Dice {CEILING.dice}" in benchmarks


@pytest.mark.parametrize(
    ("recipe", "word"), [("2017", "Fair"), ("default", "Excellent"), ("best", "Excellent")]
)
def test_each_recipe_has_the_grade_that_it_stands_for(recipe: str, word: str) -> None:
    assert judge_dice(dict(RECIPES)[recipe]).word == word


@pytest.mark.parametrize(
    ("unusual", "looked", "word", "sentence"),
    [
        (0, 0, "No masks", "No masks: no image could be used."),
        (0, 1, "Nothing unusual", "Nothing unusual in 1 mask. Their accuracy is not known"),
        (0, 64, "Nothing unusual", "Nothing unusual in 64 masks. Their accuracy is not known"),
        (1, 128, "Few unusual", "1 of 128 masks looks unusual: check these first."),
        (9, 100, "Few unusual", "9 of 100 masks look unusual: check these first."),
        (10, 100, "Many unusual", "Many masks look unusual: 10 of 100. The model may not fit"),
        (49, 100, "Many unusual", "Many masks look unusual: 49 of 100."),
        (50, 100, "Most unusual", "Most masks look unusual: 50 of 100."),
        (1, 1, "Most unusual", "Most masks look unusual: 1 of 1."),
    ],
)
def test_masks_without_truth_get_no_grade(
    unusual: int, looked: int, word: str, sentence: str
) -> None:
    verdict = judge_unscored(unusual, looked)
    assert verdict.word == word
    assert verdict.sentence.startswith(sentence)
    for grade in ("Excellent", "Good", "Fair", "Weak", "Poor", "Dice"):
        assert grade not in verdict.sentence
