"""A verdict in words: how good masks are, against models of this kind on real photographs.

The reference values are mean Dice at full size on Kaggle's photographs (1280 x 1918 pixels), of 16
cars that training did not use, though they helped to choose the recipes. Each recipe has its own
epochs, so the values compare finished models and not equal budgets. Dice of drawn, smaller or other
images can be higher or lower for the same model, so every sentence names what it compares with.
"""

from typing import NamedTuple

from carvana_ray.runtime.wording import count_of


class Reference(NamedTuple):
    """A known mean Dice on real photographs."""

    name: str
    dice: float


class Verdict(NamedTuple):
    """A grade of one or two words, and a sentence that begins with it and has its reasons."""

    word: str
    sentence: str


# Means of three seeds: the table of docs/recipes.md.
RECIPES = (
    Reference("2017", 0.9833),
    Reference("default", 0.9954),
    Reference("best", 0.9964),
)
# A perfect network on a grid of a quarter of the size: docs/benchmarks.md, 1,536 real masks.
CEILING = Reference("ceiling", 0.9994)

# The lowest Dice of each grade. Half the error is the next grade.
_GRADES = ("Excellent", 0.995), ("Good", 0.99), ("Fair", 0.98), ("Weak", 0.95), ("Poor", 0.8)
_LOWEST = "Unusable"

MANY = 0.1  # fraction of unusual masks from which the model, not an image, is to blame


def judge_dice(dice: float) -> Verdict:
    """Return the verdict on masks whose mean Dice is known. It is judged as printed: 4 decimals."""
    dice = round(dice, 4)
    word = next((word for word, least in _GRADES if dice >= least), _LOWEST)
    found = f"{word} masks: mean Dice {dice:.4f}"
    if word in ("Excellent", "Good"):
        return Verdict(word, f"{found}. On real photographs the best recipe reaches 0.996.")
    if word == _LOWEST:
        found += ". The model has not learned the task"
    return Verdict(word, f"{found}. On real photographs a good model of this kind reaches 0.99.")


def judge_unscored(unusual: int, looked: int) -> Verdict:
    """Return the verdict on masks without true masks: how many look unusual, but no grade.

    Args:
        unusual: masks to check.
        looked: all masks.
    """
    if not looked:
        return Verdict("No masks", "No masks: no image could be used.")
    masks = count_of(looked, "masks")
    if not unusual:
        sentence = f"Nothing unusual in {masks}. Their accuracy is not known without true masks."
        return Verdict("Nothing unusual", sentence)
    if unusual < MANY * looked:
        verb = "looks" if unusual == 1 else "look"
        return Verdict("Few unusual", f"{unusual:,} of {masks} {verb} unusual: check these first.")
    some = "Many" if 2 * unusual < looked else "Most"
    sentence = f"{some} masks look unusual: {unusual:,} of {looked:,}."
    return Verdict(f"{some} unusual", f"{sentence} The model may not fit these images.")


def judge_cutouts(finished: int, looked: int, unusual: int | None) -> Verdict:
    """Return the verdict on a folder of cut-outs.

    Args:
        finished: all cut-outs.
        looked: those that were read.
        unusual: of these; None if the files have no alpha.
    """
    if unusual is None or not looked:
        return Verdict("Cut out", f"{count_of(finished, 'cut-outs')}.")
    found = judge_unscored(unusual, looked)
    if looked == finished:
        return found
    sentence = f"In a sample of {looked:,} of {count_of(finished, 'cut-outs')}: {found.sentence}"
    return Verdict(found.word, sentence)
