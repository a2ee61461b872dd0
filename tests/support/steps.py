"""Training steps of a state, eager or captured, on batches that look like the real ones."""

from collections.abc import Iterator

import torch
from torch import Tensor

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES
from carvana_ray.training import graph, loop
from carvana_ray.training.state import Batch, ModelWithLoss, TrainState, build_model, init_state
from carvana_ray.training.step import WorkerContext

Size = tuple[int, int]


def worker_on(device: torch.device) -> WorkerContext:
    return WorkerContext(
        device=device,
        count=1,
        all_reduce=lambda value: value.detach().clone(),
        clock=lambda: 0.0,
        progress=lambda done: None,
    )


def batches(
    recipe: str, size: Size, batch: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    """Yield batches without end: dark disks before a light wall, with noise."""
    random = torch.Generator(device).manual_seed(seed)
    y = torch.linspace(-1, 1, size[0], device=device)[:, None]
    x = torch.linspace(-1, 1, size[1], device=device)

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(batch, 1, 1, generator=random, device=device)
        return low + (high - low) * drawn

    while True:
        distance = (x - uniform(-0.4, 0.4)) ** 2 + (y - uniform(-0.4, 0.4)) ** 2
        inside = distance < uniform(0.2, 0.6) ** 2
        noise = torch.randn(batch, *size, generator=random, device=device)
        gray = (inside * -uniform(40, 130) + 190 + 10 * noise).clamp(0, 255).to(torch.uint8)
        found = {"soft_mask": inside.to(torch.uint8) * 255}
        if RECIPES[recipe].affine_augment:
            moved = torch.eye(2, 3, device=device).repeat(batch, 1, 1)
            moved += 0.05 * torch.randn(batch, 2, 3, generator=random, device=device)
            found |= {"image": gray, "affine": moved}
        else:
            found["image"] = images.standardize(gray)
        yield {**found, "weight": torch.ones(batch, device=device)}


def new_state(
    recipe: str, base: int, steps: int, example: Batch, captured: bool, seed: int = 0
) -> TrainState:
    """Return a new state; with `captured` its steps must be recorded, or the assertion fails."""
    device = example["image"].device
    module = ModelWithLoss(build_model(base, RECIPES[recipe], seed)).to(device)
    state = init_state(module, module, RECIPES[recipe], RECIPES[recipe].learning_rate, steps)
    if captured:
        graph.capture(state, example, worker_on(device))
        assert state.captured
    return state


def take(state: TrainState, stream: Iterator[Batch], steps: int) -> tuple[Tensor, list[bool]]:
    """Take steps; return their mean losses, float64 [steps], and which were taken."""
    state.wrapped.train()
    worker = worker_on(next(state.module.parameters()).device)
    found = [loop.train_step(state, next(stream), worker) for _ in range(steps)]
    losses = torch.stack([tally[0] / tally[2].clamp(min=1) for tally, _ in found]).cpu()
    return losses, [bool(taken) for _, taken in found]


def differing(one: TrainState, other: TrainState) -> list[str]:
    """Return the names of the weights and statistics that differ."""
    values = other.model.state_dict()
    return [k for k, value in one.model.state_dict().items() if not torch.equal(value, values[k])]
