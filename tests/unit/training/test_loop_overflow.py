"""Steps that overflow under loss scaling: they leave no trace, and too many end the training."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator

import pytest
import torch
from support.training import PLAN, lone_worker, scaled, spoil, stream

from carvana_ray.training import loop
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import Batch, TrainState

pytestmark = pytest.mark.filterwarnings(
    "ignore:Detected call of `lr_scheduler"
)  # first step skipped
KINDS = ["activation", "logits", "gradient"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 2])
def test_a_run_with_a_skipped_step_is_the_run_without_that_batch(kind: str, at: int) -> None:
    """Equal to the bit: scales are powers of two."""
    plan = dataclasses.replace(PLAN, epochs=1)
    skipping, without = scaled(), scaled()
    spoil(skipping, kind, at)
    loop.train(skipping, stream(plan), plan, lone_worker(), lambda _: None)
    rest = [batch for step, batch in enumerate(stream(plan)) if step != at]
    shorter = dataclasses.replace(plan, train=plan.train - plan.batch)
    loop.train(without, rest, shorter, lone_worker(), lambda _: None)
    for name, value in without.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(skipping.model.state_dict()[name], value), name
    moments = [state.optimizer.state_dict()["state"] for state in (skipping, without)]
    for values, expected in zip(moments[0].values(), moments[1].values(), strict=True):
        assert all(torch.equal(values[name], expected[name]) for name in expected)
    scale = without.scaler.get_scale()
    assert skipping.scaler.get_scale() == (scale / 2 if kind == "gradient" else scale)
    (row,), (expected_row,) = skipping.history, without.history
    assert row["val_dice"] == expected_row["val_dice"]
    if kind != "gradient":  # then the loss is finite, and counts
        for name in ("loss", "soft_dice", "dice", "accuracy"):
            assert row[name] == pytest.approx(expected_row[name], rel=1e-9), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reports_whether_it_was_taken(kind: str) -> None:
    state = scaled()
    spoil(state, kind, 1)
    taken = [bool(loop.train_step(state, batch, lone_worker())[1]) for batch in first_batches(3)]
    assert taken == [True, False, True]


def first_batches(count: int) -> Iterator[Batch]:
    return itertools.islice(stream(PLAN), count)


def train_with_bad_steps(
    steps: int, epochs: int, bad: Collection[int], what: str = "loss"
) -> TrainState:
    """Train on tiny images; loss or gradient of the steps `bad`, counted from 1, is not finite."""
    plan = BatchPlan(train=2 * steps, val=0, batch=2, workers=1, epochs=epochs, seed=0)
    rng = torch.Generator().manual_seed(0)
    images = {step: torch.randn(2, 16, 16, generator=rng) for step in range(1, 1 + steps * epochs)}
    if what == "loss":
        images |= dict.fromkeys(bad, torch.full((2, 16, 16), math.nan))
    mask, weight = torch.full((2, 16, 16), 255.0), torch.ones(2)
    batches = [{"image": one, "soft_mask": mask, "weight": weight} for one in images.values()]
    state = scaled(base=1)
    if what == "gradient":
        (at,) = bad
        spoil(state, "gradient", at - 1)
    loop.train(state, batches, plan, lone_worker(), lambda _: None)
    return state


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 2 of the last 16 steps may be skipped."""
    monkeypatch.setattr(loop, "CHECK_FINITE_EVERY", 16)
    monkeypatch.setattr(loop, "MAX_SKIPPED", 2)


@pytest.mark.usefixtures("short_window")
@pytest.mark.parametrize(
    ("steps", "epochs", "bad"),
    [
        (25, 1, [15, 17]),
        (25, 1, [1, 2, 18, 25]),  # never more than 2 of 16
        (6, 4, [6, 7]),
        (1, 3, [1]),  # an epoch may end before the scaler has found its scale
    ],
)
def test_a_few_skipped_steps_do_not_end_the_training(
    steps: int, epochs: int, bad: Collection[int]
) -> None:
    state = train_with_bad_steps(steps, epochs, bad, "gradient" if steps == 1 else "loss")
    assert state.epoch == len(state.history) == epochs
    assert all(math.isfinite(value) for row in state.history for value in row.values())
    assert state.finite()


@pytest.mark.usefixtures("short_window")
@pytest.mark.parametrize(
    ("steps", "epochs", "bad", "where"),
    [
        (25, 1, [15, 17, 19], "at step 19 of epoch 1 and at 2 of the steps before it"),
        (25, 1, range(1, 26), "at step 3 of epoch 1 and at 2 of the steps before it"),
        (6, 4, [6, 7, 9], "at step 3 of epoch 2 and at 2 of the steps before it"),
        (2, 2, [1, 2], "loss of epoch 1 is nan"),  # no more than 2, but the whole epoch
    ],
)
def test_too_many_skipped_steps_end_the_training(
    steps: int, epochs: int, bad: Collection[int], where: str
) -> None:
    with pytest.raises(loop.DivergedError, match=where) as caught:
        train_with_bad_steps(steps, epochs, bad)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("short_window")
@pytest.mark.parametrize("bad", [[15, 17, 19], [3, 4, 5, 20], range(1, 25), [23, 24, 25], []])
def test_a_late_look_finds_what_a_look_at_once_finds(bad: Collection[int]) -> None:
    """On a GPU the flags are read one interval later, and by the end of the epoch."""
    flags = torch.ones(25, dtype=torch.bool)
    for step in bad:
        flags[step - 1] = False
    found = []
    for late in (False, True):
        check = loop._FiniteCheck(scaled(base=1), flags, late)
        looks = [(step, step * 1e-3, step == 25) for step in (8, 16, 24, 25)]
        try:
            for step, rate, last in looks:
                check.look(step, step, rate, last)
            found.append(("", 0))
        except loop.DivergedError as error:
            found.append((str(error), step))
    assert found[0][0] == found[1][0]
    assert bool(found[0][0]) == (len(bad) > 2)
    assert found[0][1] <= found[1][1] <= 25
