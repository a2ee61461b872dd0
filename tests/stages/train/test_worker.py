"""The blocks that a training worker uses, and what it trains with."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.training import lone_worker

from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import Recipe
from carvana_ray.stages.train import worker
from carvana_ray.stages.train.worker import _own_blocks
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.prefetch import Arrays

PLAN = BatchPlan(train=9, val=3, batch=4, workers=2, epochs=4, seed=0)  # 2 + 1 steps of 2 each


def blocks_from(first: int, steps: int, rank: int = 1, spare: int = 0) -> Iterator[Arrays]:
    """Yield a worker's blocks of `steps` steps from an epoch on; rows hold the step's number."""
    whole = PLAN.steps_per_epoch
    numbers = np.arange(first * whole, PLAN.epochs * whole)
    for start in range(0, len(numbers), steps):
        own = np.repeat(numbers[start : start + steps], PLAN.per_worker)
        length = len(own) + spare
        yield {
            "number": own,
            "weight": np.ones(length, np.float32),
            "epoch": own // whole,
            "rank": np.full(length, rank),
        }


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
@pytest.mark.parametrize(("first", "epoch"), [(0, 0), (0, 1), (0, 3), (1, 1), (1, 3)])
def test_a_worker_begins_at_its_epoch_wherever_the_stream_begins(
    steps: int, first: int, epoch: int
) -> None:
    """A checkpoint may have been written after the stream was built."""
    blocks = list(_own_blocks(blocks_from(first, steps), epoch, 1, PLAN))
    numbers = np.concatenate([block["number"] for block in blocks])
    expected = np.arange(epoch * PLAN.steps_per_epoch, PLAN.epochs * PLAN.steps_per_epoch)
    assert np.array_equal(numbers, np.repeat(expected, PLAN.per_worker))
    assert all(set(block) == {"number", "weight"} for block in blocks)
    assert all(len(block["weight"]) == len(block["number"]) > 0 for block in blocks)


def test_batches_of_another_worker_or_of_a_later_epoch_are_refused() -> None:
    with pytest.raises(RuntimeError, match="worker 0, epoch 0: received the batches of worker 1"):
        list(_own_blocks(blocks_from(0, 1), 0, 0, PLAN))
    with pytest.raises(RuntimeError, match=r"worker 1, epoch 1: .* epoch 2"):
        list(_own_blocks(blocks_from(2, 1), 1, 1, PLAN))
    with pytest.raises(RuntimeError, match="3 images in batches of 2"):
        list(_own_blocks(blocks_from(0, 1, spare=1), 0, 1, PLAN))


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_a_worker_trains_with_the_edge_weight_of_its_recipe(
    compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "prepare_model", lambda module, **options: module)
    flags = TrainFlags(recipe="default", base=2, compile=compiled)
    run = SimpleNamespace(base_model=None)
    job = cast(Any, SimpleNamespace(flags=flags, run=run, recipe=Recipe(edge_weight=7.0)))
    with torch._dynamo.config.patch(suppress_errors=False):  # sets it back afterwards
        state = worker._build_state(job, PLAN, lone_worker(), None)
    assert state.module.edge_weight == 7
