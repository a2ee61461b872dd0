"""The loop: it learns, the same seed gives the same run, and a resumed run is the run itself."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from carvana_ray import checkpoint, images, training
from carvana_ray.batches import BatchPlan
from carvana_ray.config import RECIPES
from carvana_ray.training import Batch, State, Worker

RATE = 0.02  # a network this small, on pictures this small, takes ten times the default's
PLAN = BatchPlan(train=20, val=6, batch=4, workers=1, epochs=12, seed=3)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """26 pictures with a dark disk each, and their masks: uint8 [26, 32, 48]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :48]
    cx, cy, r = rng.uniform(15, 33, 26), rng.uniform(10, 22, 26), rng.uniform(5, 9, 26)
    inside = (x - cx[:, None, None]) ** 2 + (y - cy[:, None, None]) ** 2 < r[:, None, None] ** 2
    gray = np.where(inside, 60, 190) + rng.normal(0, 10, inside.shape)
    return gray.clip(0, 255).astype(np.uint8), inside.astype(np.uint8) * np.uint8(255)


def stream(plan: BatchPlan, first_epoch: int = 0) -> Iterator[Batch]:
    gray, share = pictures()
    image = images.standardize(gray)
    for index in range(first_epoch * plan.blocks_per_epoch, plan.epochs * plan.blocks_per_epoch):
        block = plan.block(index)
        yield {
            "image": torch.from_numpy(image[block.pictures]),
            "share": torch.from_numpy(share[block.pictures]),
            "weight": torch.from_numpy(block.weight),
        }


def lone_worker(**changes: Any) -> Worker:
    ticks = iter(range(10**9))
    values: dict[str, Any] = {
        "device": torch.device("cpu"),
        "count": 1,
        "add_up": lambda value: value.clone(),
        "clock": lambda: next(ticks) / 1000,
        "progress": lambda done: None,
    }
    return Worker(**(values | changes))


def fresh(recipe: str = "default", plan: BatchPlan = PLAN) -> State:
    model = training.build(4, RECIPES[recipe], seed=0)
    return training.start(model, model, RECIPES[recipe], RATE, plan.epochs * plan.train_steps)


def run(state: State, report: Callable[[State], None] = lambda _: None) -> State:
    training.train(state, stream(PLAN, state.epoch), PLAN, lone_worker(), report)
    return state


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if "second" not in k and "wait" not in k} for row in history
    ]


@pytest.fixture(scope="module")
def whole() -> State:
    torch.set_num_threads(1)
    return run(fresh())


def test_it_learns(whole: State) -> None:
    rows = whole.history
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["val_dice"] > 0.8


@pytest.mark.parametrize("recipe", ["default", "2017"])
def test_the_same_seed_gives_the_same_loss_twice(recipe: str) -> None:
    torch.set_num_threads(1)
    first, second = run(fresh(recipe)), run(fresh(recipe))
    assert without_times(first.history) == without_times(second.history)


def test_a_resumed_run_is_the_run_itself(whole: State) -> None:
    saved: list[bytes] = []
    run(fresh(), lambda state: saved.append(checkpoint.to_bytes(state.state_dict())))
    again = fresh()
    again.load_state_dict(checkpoint.from_bytes(saved[1]))
    assert again.epoch == 2
    run(again)
    assert without_times(again.history) == without_times(whole.history)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_the_one_cycle_ends_near_zero_and_the_flat_rate_stays(whole: State) -> None:
    assert whole.history[-1]["learning_rate"] == pytest.approx(RATE / 25e4)
    flat = run(fresh("2017"))
    assert {row["learning_rate"] for row in flat.history} == {RATE}


def test_validation_counts_each_picture_once_and_fillers_never() -> None:
    """6 pictures in batches of 4: the means must be those of the 6, found one by one."""
    state = fresh()
    worker = lone_worker()
    batches = [b for b, at in zip(stream(PLAN), range(7), strict=False) if at >= PLAN.train_steps]
    assert len(batches) == 2
    state.wrapped.eval()
    tally = sum(training.validation_step(state, batch, worker) for batch in batches)
    gray, share = pictures()
    with torch.no_grad():
        logits = state.model(torch.from_numpy(images.standardize(gray[20:]))[:, None])
    mask, truth = logits[:, 0].numpy() > 0, share[20:] > 127
    dice = [2 * (m & t).sum() / (m.sum() + t.sum()) for m, t in zip(mask, truth, strict=True)]
    found = training.means(tally, "val_")
    assert tally[2] == 6
    assert found["val_dice"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert found["val_accuracy"] == pytest.approx((mask == truth).mean(), abs=1e-6)


def test_validation_changes_nothing_in_the_network() -> None:
    state = fresh()
    before = copy.deepcopy(state.model.state_dict())
    state.wrapped.eval()
    training.validation_step(state, next(stream(PLAN)), lone_worker())
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    state = fresh()
    with torch.no_grad():
        state.model.head.bias.fill_(float("nan"))
    with pytest.raises(training.Diverged, match="epoch 1"):
        run(state)


def test_waiting_for_batches_is_told_apart_from_the_step() -> None:
    """A clock that runs while a batch is fetched alone: all the time goes into waiting."""
    now = [0.0]

    def slow() -> Iterator[Batch]:
        for batch in stream(PLAN):
            now[0] += 1.0
            yield batch

    state = fresh()
    training.train(state, slow(), PLAN, lone_worker(clock=lambda: now[0]), lambda _: None)
    row = state.history[0]
    assert row["data_wait_fraction"] == 1.0
    assert row["images_per_second"] == pytest.approx(PLAN.batch)
    assert row["first_batch_seconds"] == 1.0
