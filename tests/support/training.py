"""A tiny training on drawn disks: its images, its batches and its network."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import (
    Batch,
    ModelWithLoss,
    TrainState,
    build_model,
    init_state,
)
from carvana_ray.training.step import WorkerContext

RATE = 0.02  # a network this small, on images this small, takes ten times the default's
PLAN = BatchPlan(train=20, val=6, batch=4, workers=1, epochs=12, seed=3)


def disks() -> tuple[np.ndarray, np.ndarray]:
    """26 images with a dark disk each, and their masks: uint8 [26, 32, 48]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :48]
    cx, cy, r = rng.uniform(15, 33, 26), rng.uniform(10, 22, 26), rng.uniform(5, 9, 26)
    inside = (x - cx[:, None, None]) ** 2 + (y - cy[:, None, None]) ** 2 < r[:, None, None] ** 2
    gray = np.where(inside, 60, 190) + rng.normal(0, 10, inside.shape)
    return gray.clip(0, 255).astype(np.uint8), inside.astype(np.uint8) * np.uint8(255)


def stream(plan: BatchPlan, first_epoch: int = 0) -> Iterator[Batch]:
    gray, soft_mask = disks()
    image = images.standardize(gray)
    for index in range(first_epoch * plan.blocks_per_epoch, plan.epochs * plan.blocks_per_epoch):
        block = plan.worker_batch(index)
        yield {
            "image": torch.from_numpy(image[block.indices]),
            "soft_mask": torch.from_numpy(soft_mask[block.indices]),
            "weight": torch.from_numpy(block.weight),
        }


def lone_worker(**changes: Any) -> WorkerContext:
    ticks = iter(range(10**9))
    values: dict[str, Any] = {
        "device": torch.device("cpu"),
        "count": 1,
        "all_reduce": lambda value: value.clone(),
        "clock": lambda: next(ticks) / 1000,
        "progress": lambda done: None,
    }
    return WorkerContext(**(values | changes))


def scaled(base: int = 4) -> TrainState:
    """A new state with loss scaling, as on a GPU, and a flat learning rate."""
    recipe = Recipe(schedule="flat")
    module = ModelWithLoss(build_model(base, recipe, seed=0))
    state = init_state(module, module, recipe, RATE, 1)
    state.scaler = torch.amp.GradScaler("cpu")
    return state


def spoil(state: TrainState, kind: str, at: int) -> None:
    """Let one number overflow in training step `at` of a state, counted from 0.

    The kind is ``activation`` (before a normalization layer), ``logits`` or ``gradient``.
    """
    calls = itertools.count()

    def overflow(layer: nn.Module, _: object, out: Tensor) -> Tensor:
        if not layer.training or next(calls) != at:
            return out
        if kind == "gradient":
            out.register_hook(lambda gradient: gradient * math.inf)
            return out
        return out.masked_fill(out == out.max(), math.inf)

    layer = state.model.head if kind == "logits" else state.model.down[1][0]
    layer.register_forward_hook(overflow)


def fresh(recipe: str = "default", plan: BatchPlan = PLAN) -> TrainState:
    module = ModelWithLoss(build_model(4, RECIPES[recipe], seed=0))
    return init_state(module, module, RECIPES[recipe], RATE, plan.epochs * plan.train_steps)


def assert_equal(found: object, expected: object, where: str = "state") -> None:
    """Compare nested dictionaries with tensors, to the bit."""
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor), where
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert list(found) == list(expected), where
        for name, value in expected.items():
            assert_equal(found[name], value, f"{where}.{name}")
    else:
        assert found == expected, where
