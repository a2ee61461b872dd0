"""The blocks that a training worker uses, and what it trains with."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support import lite0
from support.finetuning import write_model
from support.training import lone_worker

from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.stages.train import worker
from carvana_ray.stages.train.worker import _build_network, _own_blocks
from carvana_ray.training import pretrained
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.prefetch import Arrays
from carvana_ray.training.state import unet_config

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


def a_job(base_model: Any = None, **flags: Any) -> Any:
    given = TrainFlags(recipe="best", base=2, encoder="lite0", **flags)
    run = SimpleNamespace(base_model=base_model)
    return SimpleNamespace(flags=given, recipe=RECIPES["best"], run=run)


def test_a_new_network_has_the_published_weights_in_its_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "drawn_weights")
    weights = lite0.install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    started = _build_network(a_job(), is_new=True).state_dict()
    name = "blocks.3.depthwise.conv.weight"
    assert torch.equal(started[f"encoder.{name}"], weights["_blocks.3._depthwise_conv.weight"])


def test_after_a_checkpoint_or_a_base_model_the_published_weights_are_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    _build_network(a_job(), is_new=False)
    design = unet_config(2, RECIPES["best"], "lite0")
    base_model = write_model(tmp_path / "model", seed=3, recipe="best", unet=design)
    job = a_job(base_model, init_from=str(tmp_path / "model"))
    torch.manual_seed(3)
    expected = design.build().state_dict()
    started = _build_network(job, is_new=True).state_dict()
    assert all(torch.equal(started[name], value) for name, value in expected.items())
