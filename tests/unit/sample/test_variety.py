"""Kinds of variety: each has its own generator, which the others do not change."""

from dataclasses import fields, replace

import pytest
from support.drawn_car import rng

from carvana_ray.sample.variety import Variety

KINDS = [field.name for field in fields(Variety)]


def test_all_kinds_are_on_by_default_and_draw_differently() -> None:
    numbers = {kind: dice.uniform() for kind, dice in Variety().dice(rng(1)).items()}
    assert list(numbers) == KINDS
    assert len(set(numbers.values())) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_off_has_no_generator_and_leaves_the_others(kind: str) -> None:
    everything = {name: dice.uniform() for name, dice in Variety().dice(rng(1)).items()}
    without = {
        name: dice.uniform()
        for name, dice in replace(Variety(), **{kind: False}).dice(rng(1)).items()
    }
    assert without == {name: number for name, number in everything.items() if name != kind}


def test_the_generator_keeps_its_state() -> None:
    generator = rng(1)
    Variety().dice(generator)
    assert generator.uniform() == rng(1).uniform()
