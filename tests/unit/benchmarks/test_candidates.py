"""Candidates as a command line names them."""

import pytest
from candidates import read_candidate
from in_memory import Way, job_path

from carvana_ray.config.recipes import RECIPES


def test_a_recipe_alone_is_that_recipe() -> None:
    found = read_candidate("best")
    assert (found.name, found.recipe) == ("best", RECIPES["best"])
    assert found.way == Way(job_path(), 32, "none")


def test_changes_are_values_of_the_types_of_the_fields() -> None:
    found = read_candidate(
        "2017:batch_size=4,flip=True,norm=batch,learning_rate=1,grad_clip_norm=2"
    )
    recipe = found.recipe
    assert (recipe.batch_size, recipe.flip, recipe.norm) == (4, True, "batch")
    assert (recipe.learning_rate, recipe.grad_clip_norm) == (1.0, 2.0)
    assert type(recipe.learning_rate) is float
    assert read_candidate("best:grad_clip_norm=None").recipe.grad_clip_norm is None


def test_path_channels_and_encoder_are_no_fields_of_a_recipe() -> None:
    found = read_candidate("best:path=eager,base=48,encoder=lite0")
    assert (found.way, found.recipe) == (Way("eager", 48, "lite0"), RECIPES["best"])


def test_own_epochs_come_before_those_of_all_and_are_no_part_of_the_name() -> None:
    assert read_candidate("best", 20).recipe.epochs == 20
    found = read_candidate("best:epochs=60,flip=False", 20)
    assert (found.recipe.epochs, found.name) == (60, "best:flip=False")
    assert read_candidate("best:epochs=60", 20).name == "best"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first", "the recipe first is unknown; known: default, 2017, best"),
        ("best:batchsize=4", "the field batchsize is unknown; known: norm, init"),
        ("best:batch_size=4.5", "batch_size=4.5 must be of the type int"),
        ("best:batch_size=True", "batch_size=True must be of the type int"),
        ("best:flip=no", "flip=no must be of the type bool"),
        ("best:flip", "flip= must be of the type bool"),
        ("best:path=fast", "the path fast is unknown; known: eager"),
    ],
)
def test_what_is_unknown_ends_with_one_line(text: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message) as raised:
        read_candidate(text)
    assert "\n" not in str(raised.value)
