"""The training loop over a stream of batches: torch alone, no Ray, no files, no clock of its own.

A worker gives in its device, its part of the batches, how workers add up a tensor and where an
epoch's results go; with one process these are a list, the identity and a function.

On a GPU the CPU runs ahead: no number is looked at within a step.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import Batch, Row, TrainState, prepare_batch
from carvana_ray.unet import loss


class DivergedError(RuntimeError):
    """The loss, or a weight, is no longer a finite number."""


CHECK_FINITE_EVERY = 64  # steps between looks at the loss: each makes the CPU wait for the GPU


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What a loop must know of its place among the workers.

    Attributes:
        device: where the network and the batches are.
        count: number of workers.
        add_up: returns the sum over workers of a tensor (a new tensor, no gradient).
        clock: seconds, monotonic.
        progress: called with (pictures done in this run) after each step; must be cheap.
    """

    device: torch.device
    count: int
    all_reduce: Callable[[Tensor], Tensor]
    clock: Callable[[], float]
    progress: Callable[[int], None]


def train_step(state: TrainState, batch: Batch, worker: WorkerContext) -> Tensor:
    """Take one step; return float64 [5]: weighted loss and soft Dice, then `metrics.COUNTED`.

    The loss is that of the whole batch of all workers. DDP averages gradients over workers where
    they must add up, hence the factor `count`.
    """
    own, counted = state.wrapped(*prepare_batch(batch, training=True))
    sums = loss.reduce_sums(own, worker.all_reduce)
    value = loss.loss_from_sums(sums)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(value * worker.count).backward()
    if state.clip:
        # A few batches have gradients ten times as long as most: at one of them Adam's steps go
        # astray for long. None of this looks at the GPU.
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.scored.parameters(), state.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    with torch.no_grad():
        return _tally(sums, counted)


def _tally(sums: Tensor, counted: Tensor) -> Tensor:
    values = torch.stack([loss.loss_from_sums(sums), loss.soft_dice(sums)]).double()
    return torch.cat([values * counted[0], counted])


@torch.no_grad()
def validation_step(state: TrainState, batch: Batch, worker: WorkerContext) -> Tensor:
    """Return the tally of one validation batch, as `train_step`'s."""
    # `forward`, not a call: what is compiled is the step of training, and bare of DDP's hooks.
    own, counted = state.scored.forward(*prepare_batch(batch, training=False))
    return _tally(worker.all_reduce(own), counted)


@torch.no_grad()
def average_buffers(model: nn.Module, worker: WorkerContext) -> None:
    """Give all workers the mean of what their normalizations have seen, once an epoch.

    DDP would send those of the first worker to all others before each step.
    """
    if worker.count > 1:
        for value in model.buffers():
            if value.is_floating_point():
                value.copy_(worker.all_reduce(value) / worker.count)


def tally_means(tally: Tensor, prefix: str = "") -> Row:
    """Return the means of a tally [5] over pictures, by name."""
    values = tally.tolist()
    images = max(values[2], 1.0)
    return {
        f"{prefix}loss": values[0] / images,
        f"{prefix}soft_dice": values[1] / images,
        f"{prefix}dice": values[3] / images,
        f"{prefix}accuracy": values[4] / images,
    }


class _Waiting(Iterator[Batch]):
    """A stream of batches that counts the seconds one waited for it."""

    def __init__(self, batches: Iterable[Batch], clock: Callable[[], float]) -> None:
        self._batches, self._clock, self.seconds = iter(batches), clock, 0.0

    def __next__(self) -> Batch:
        asked = self._clock()
        batch = next(self._batches)
        self.seconds += self._clock() - asked
        return batch


def train_epoch(state: TrainState, stream: _Waiting, plan: BatchPlan, worker: WorkerContext) -> Row:
    """Train and validate one epoch; return its row of the history.

    Raises:
        Diverged: the loss is not finite.
    """
    tally = torch.zeros(2, 5, dtype=torch.float64, device=worker.device)
    began, waited = worker.clock(), stream.seconds
    state.wrapped.train()
    steady, steady_waited, steady_images = began, waited, plan.train_steps * plan.batch
    finite_steps = torch.zeros((), device=worker.device)
    for step in range(plan.train_steps):
        if step == 1:  # the first batch waits for processes to start and kernels to load
            steady, steady_waited = worker.clock(), stream.seconds
            steady_images -= plan.batch
        rate = state.optimizer.param_groups[0]["lr"]
        counted = train_step(state, next(stream), worker)
        tally[0] += counted
        # The loss is that of all workers: they all stop at the same step, or none.
        finite_steps += torch.isfinite(counted[0]) & (finite_steps == step)
        if (step + 1) % CHECK_FINITE_EVERY == 0:
            _finite_so_far(finite_steps, step + 1, state.epoch, rate)
        worker.progress((state.epoch * plan.train_steps + step + 1) * plan.batch)
    # Reading the sum waits for the device: from here on the clock counts all training steps.
    _finite_so_far(finite_steps, plan.train_steps, state.epoch, rate)
    train_means = tally_means(worker.all_reduce(tally[0]))
    seconds = worker.clock() - steady
    stall = stream.seconds - steady_waited
    average_buffers(state.model, worker)
    state.wrapped.eval()
    for _ in range(plan.val_steps):
        tally[1] += validation_step(state, next(stream), worker)
    row: Row = {"epoch": state.epoch + 1, **train_means}
    if plan.val_steps:
        row |= tally_means(worker.all_reduce(tally[1]), "val_")
    row |= {
        "learning_rate": rate,  # of the last step
        "seconds": worker.clock() - began,
        "first_batch_seconds": steady_waited - waited,
        "images": plan.train_steps * plan.batch,
        "images_per_second": steady_images / seconds,
        "data_wait_fraction": stall / seconds,
    }
    if wrong := [name for name, value in row.items() if not math.isfinite(value)]:
        raise DivergedError(f"{wrong[0]} of epoch {state.epoch + 1} is {row[wrong[0]]}")
    return row


def _finite_so_far(finite_steps: Tensor, steps: int, epoch: int, rate: float) -> None:
    first = int(finite_steps)
    if first < steps:
        raise DivergedError(
            f"the loss is no finite number at step {first + 1} of epoch {epoch + 1}, at a learning "
            f"rate of about {rate:.3g}: use a lower --learning-rate"
        )


def train(
    state: TrainState,
    batches: Iterable[Batch],
    plan: BatchPlan,
    worker: WorkerContext,
    report: Callable[[TrainState], None],
) -> None:
    """Train from ``state.epoch`` to ``plan.epochs``; call `report` after each epoch.

    Args:
        batches: this worker's part of the run from epoch ``state.epoch`` on, on its device: `image`
            float32 [b, h, w] standardized, `share` uint8 [b, h, w], `weight` float32 [b]; or as
            `prepared` says.
    """
    stream = _Waiting(batches, worker.clock)
    while state.epoch < plan.epochs:
        row = train_epoch(state, stream, plan, worker)
        if not state.finite():
            raise DivergedError(f"a weight is no finite number after epoch {state.epoch + 1}")
        state.epoch += 1
        state.history.append(row)
        report(state)
