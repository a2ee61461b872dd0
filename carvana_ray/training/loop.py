"""The training loop over a stream of batches. torch only: no Ray, no files, no clock of its own.

No value is read back within a step, so that on a GPU the CPU runs ahead of the device.
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
    """The loss or a weight is NaN or infinite."""


CHECK_FINITE_EVERY = 64  # steps between checks of the loss; each makes the CPU wait for the GPU


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """The loop's view of its worker.

    Attributes:
        count: number of workers.
        all_reduce: returns the sum of a tensor over all workers, as a new tensor without gradient.
        clock: returns monotonic seconds.
        progress: called after each step with the number of images done; must be cheap.
    """

    device: torch.device
    count: int
    all_reduce: Callable[[Tensor], Tensor]
    clock: Callable[[], float]
    progress: Callable[[int], None]


def train_step(state: TrainState, batch: Batch, worker: WorkerContext) -> Tensor:
    """Take one optimizer step for the loss of the whole batch over all workers.

    Returns:
        the tally of the batch, float64 [5]: loss and soft Dice, each times the number of images,
        then this worker's `metrics.METRICS`.
    """
    own, counts = state.wrapped(*prepare_batch(batch, training=True))
    sums = loss.reduce_sums(own, worker.all_reduce)
    value = loss.loss_from_sums(sums)
    state.optimizer.zero_grad(set_to_none=True)
    # DDP averages gradients over workers where they must add up, hence the factor.
    state.scaler.scale(value * worker.count).backward()
    if state.grad_clip_norm:
        # A few batches have gradients ten times the usual norm. One such step throws Adam's
        # moments off for many steps. Clipping does not synchronize with the GPU.
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.module.parameters(), state.grad_clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    with torch.no_grad():
        return _tally(sums, counts)


def _tally(sums: Tensor, counts: Tensor) -> Tensor:
    values = torch.stack([loss.loss_from_sums(sums), loss.soft_dice(sums)]).double()
    return torch.cat([values * counts[0], counts])


@torch.no_grad()
def validation_step(state: TrainState, batch: Batch, worker: WorkerContext) -> Tensor:
    """Return the tally of one validation batch, as `train_step` does."""
    # `forward` bypasses DDP's hooks, and the compiled graph, which is that of the training step.
    own, counts = state.module.forward(*prepare_batch(batch, training=False))
    return _tally(worker.all_reduce(own), counts)


@torch.no_grad()
def average_buffers(model: nn.Module, worker: WorkerContext) -> None:
    """Average the normalization statistics over all workers, once per epoch.

    DDP would instead broadcast those of the first worker before each step.
    """
    if worker.count > 1:
        for value in model.buffers():
            if value.is_floating_point():
                value.copy_(worker.all_reduce(value) / worker.count)


def tally_means(tally: Tensor, prefix: str = "") -> Row:
    """Return the means over images of a tally [5], by name."""
    values = tally.tolist()
    images = max(values[2], 1.0)
    return {
        f"{prefix}loss": values[0] / images,
        f"{prefix}soft_dice": values[1] / images,
        f"{prefix}dice": values[3] / images,
        f"{prefix}accuracy": values[4] / images,
    }


class _TimedStream(Iterator[Batch]):
    """A stream of batches that adds up the seconds spent waiting for it."""

    def __init__(self, batches: Iterable[Batch], clock: Callable[[], float]) -> None:
        self._batches, self._clock, self.seconds = iter(batches), clock, 0.0

    def __next__(self) -> Batch:
        began = self._clock()
        batch = next(self._batches)
        self.seconds += self._clock() - began
        return batch


def train_epoch(
    state: TrainState, stream: _TimedStream, plan: BatchPlan, worker: WorkerContext
) -> Row:
    """Train and validate one epoch; return its row of the history.

    Raises:
        DivergedError: a loss is not finite.
    """
    began = worker.clock()
    means, speed = _train_all_steps(state, stream, plan, worker)
    average_buffers(state.model, worker)
    state.wrapped.eval()
    row: Row = {"epoch": state.epoch + 1, **means}
    if plan.val_steps:
        tally = torch.zeros(5, dtype=torch.float64, device=worker.device)
        for _ in range(plan.val_steps):
            tally += validation_step(state, next(stream), worker)
        row |= tally_means(worker.all_reduce(tally), "val_")
    row |= {**speed, "seconds": worker.clock() - began}
    if wrong := [name for name, value in row.items() if not math.isfinite(value)]:
        raise DivergedError(f"{wrong[0]} of epoch {state.epoch + 1} is {row[wrong[0]]}")
    return row


def _train_all_steps(
    state: TrainState, stream: _TimedStream, plan: BatchPlan, worker: WorkerContext
) -> tuple[Row, Row]:
    """Take all training steps of an epoch; return its metrics, and its learning rate and speed."""
    tally = torch.zeros(5, dtype=torch.float64, device=worker.device)
    state.wrapped.train()
    # Speed is that of all steps but the first, which waits for processes and kernels.
    images = counted = plan.train_steps * plan.batch
    start, start_waited = worker.clock(), stream.seconds
    waited_before = stream.seconds
    finite_steps = torch.zeros((), device=worker.device)
    for step in range(plan.train_steps):
        if step == 1:
            start, start_waited = worker.clock(), stream.seconds
            counted -= plan.batch
        rate = state.optimizer.param_groups[0]["lr"]
        batch_tally = train_step(state, next(stream), worker)
        tally += batch_tally
        # The loss covers all workers, so that either all of them stop at a step or none.
        finite_steps += torch.isfinite(batch_tally[0]) & (finite_steps == step)
        if (step + 1) % CHECK_FINITE_EVERY == 0:
            _require_finite(finite_steps, step + 1, state.epoch, rate)
        worker.progress((state.epoch * plan.train_steps + step + 1) * plan.batch)
    # Reading this value waits for the device, so that the clock below covers all steps.
    _require_finite(finite_steps, plan.train_steps, state.epoch, rate)
    means = tally_means(worker.all_reduce(tally))
    seconds = worker.clock() - start
    return means, {
        "learning_rate": rate,  # of the last step
        "first_batch_seconds": start_waited - waited_before,
        "images": images,
        "images_per_second": counted / seconds,
        "data_wait_fraction": (stream.seconds - start_waited) / seconds,
    }


def _require_finite(finite_steps: Tensor, steps: int, epoch: int, rate: float) -> None:
    first = int(finite_steps)
    if first < steps:
        raise DivergedError(
            f"the loss is not finite at step {first + 1} of epoch {epoch + 1}, at a learning rate "
            f"of about {rate:.3g}: use a lower --learning-rate"
        )


def train(
    state: TrainState,
    batches: Iterable[Batch],
    plan: BatchPlan,
    worker: WorkerContext,
    on_epoch_end: Callable[[TrainState], None],
) -> None:
    """Train from ``state.epoch`` to ``plan.epochs``.

    Args:
        state: advanced in place.
        batches: this worker's batches from epoch ``state.epoch`` on, on its device, as
            `prepare_batch` takes them.
        on_epoch_end: called with the state after each epoch.

    Raises:
        DivergedError: a loss or a weight is not finite.
    """
    stream = _TimedStream(batches, worker.clock)
    while state.epoch < plan.epochs:
        row = train_epoch(state, stream, plan, worker)
        if not state.finite():
            raise DivergedError(
                f"a weight is not finite after epoch {state.epoch + 1}: use a lower --learning-rate"
            )
        state.epoch += 1
        state.history.append(row)
        on_epoch_end(state)
