"""The training loop over a stream of batches. torch only: no Ray, no files, no clock of its own.

No value is read back within a step, so that on a GPU the CPU runs ahead of the device.

With loss scaling (float16) single steps may overflow. Such a step is skipped: weights, optimizer
and normalization statistics stay as they were before it. Without loss scaling it ends the training.
"""

import logging
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
# Of the last `CHECK_FINITE_EVERY` steps. A new scaler has to skip a few steps to find its scale.
MAX_SKIPPED = 8

log = logging.getLogger(__name__)


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


def train_step(state: TrainState, batch: Batch, worker: WorkerContext) -> tuple[Tensor, Tensor]:
    """Take one optimizer step for the loss of the whole batch over all workers, or skip it.

    Returns:
        the tally of the batch, float64 [5]: loss and soft Dice, each times the number of images,
        then this worker's `metrics.METRICS`; zeros if the loss of a skipped step is not finite.
        And bool []: whether the loss, and with loss scaling the gradient, is finite.
    """
    one = torch.ones((), device=worker.device)
    before = (state.statistics(), state.scaler.scale(one)) if state.scaler.is_enabled() else None
    own, counts = state.wrapped(*prepare_batch(batch, training=True))
    sums = loss.reduce_sums(own, worker.all_reduce)
    value = loss.loss_from_sums(sums)
    state.optimizer.zero_grad(set_to_none=True)
    # DDP averages gradients over workers where they must add up, hence the count. The factor is NaN
    # if the loss is not finite: its gradient may be finite, and the scaler judges gradients only.
    factor = worker.count + 0 * value.detach()
    state.scaler.scale(value * factor).backward()
    norm = _step_optimizer(state)
    with torch.no_grad():
        tally, finite = _tally(sums, counts), factor == worker.count
        if before is None:
            return tally, finite
        taken, (statistics, scale) = norm.isfinite(), before
        state.load_statistics(state.statistics().where(taken, statistics))
        # A smaller scale cannot help the loss, and would come near zero after some such steps.
        state.scaler.update(state.scaler.scale(one).where(finite, scale))
        return tally.where(finite, 0), taken


def _step_optimizer(state: TrainState) -> Tensor:
    """Take the optimizer's step; return the norm of the gradient before clipping: float32 [].

    The scaler skips the step if the gradient is not finite.
    """
    state.scaler.unscale_(state.optimizer)
    # A few batches have gradients ten times the usual norm. One such step throws Adam's moments off
    # for many steps. Clipping does not synchronize with the GPU.
    limit = state.grad_clip_norm or math.inf
    norm = nn.utils.clip_grad_norm_(state.module.parameters(), limit)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    return norm


def _tally(sums: Tensor, counts: Tensor) -> Tensor:
    values = torch.stack([loss.loss_from_sums(sums), loss.soft_dice(sums)]).double()
    return torch.cat([values * counts[0], counts])


@torch.no_grad()
def validation_step(state: TrainState, batch: Batch, worker: WorkerContext) -> Tensor:
    """Return the tally of one validation batch, as that of `train_step`."""
    # `forward` bypasses DDP's hooks, and the compiled graph, which is that of the training step.
    own, counts = state.module.forward(*prepare_batch(batch, training=False))
    return _tally(worker.all_reduce(own), counts)


@torch.no_grad()
def average_statistics(state: TrainState, worker: WorkerContext) -> None:
    """Average the normalization statistics over all workers, once per epoch.

    DDP would instead broadcast those of the first worker before each step.
    """
    if worker.count > 1 and state.buffers:
        state.load_statistics(worker.all_reduce(state.statistics()) / worker.count)


def tally_means(tally: Tensor, prefix: str = "") -> Row:
    """Return the means over images of a tally [5], by name; NaN if it has no images."""
    values = tally.tolist()
    images = values[2] or math.nan
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
    state: TrainState,
    stream: _TimedStream,
    plan: BatchPlan,
    worker: WorkerContext,
    finite_steps: Tensor,
) -> Row:
    """Train and validate one epoch; return its row of the history.

    `finite_steps` is bool, a value for each training step of the run; those of the epoch are set.

    Raises:
        DivergedError: a loss is not finite.
    """
    began = worker.clock()
    means, speed = _train_all_steps(state, stream, plan, worker, finite_steps)
    average_statistics(state, worker)
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
    state: TrainState,
    stream: _TimedStream,
    plan: BatchPlan,
    worker: WorkerContext,
    finite_steps: Tensor,
) -> tuple[Row, Row]:
    """Take all training steps of an epoch; return its metrics, and its learning rate and speed."""
    tally = torch.zeros(5, dtype=torch.float64, device=worker.device)
    state.wrapped.train()
    # Speed is that of all steps but the first, which waits for processes and kernels.
    images = counted = plan.train_steps * plan.batch
    start, start_waited = worker.clock(), stream.seconds
    waited_before = stream.seconds
    first = state.epoch * plan.train_steps
    for step in range(plan.train_steps):
        if step == 1:
            start, start_waited = worker.clock(), stream.seconds
            counted -= plan.batch
        rate = state.optimizer.param_groups[0]["lr"]
        batch_tally, finite_steps[first + step] = train_step(state, next(stream), worker)
        tally += batch_tally
        if (step + 1) % CHECK_FINITE_EVERY == 0:
            _require_finite(finite_steps[: first + step + 1], step + 1, state, rate)
        worker.progress((first + step + 1) * plan.batch)
    # Reading these values waits for the device, so that the clock below covers all steps.
    _require_finite(finite_steps[: first + step + 1], step + 1, state, rate)
    if skipped := plan.train_steps - int(finite_steps[first : first + step + 1].sum()):
        log.debug("epoch %d: %d steps skipped", state.epoch + 1, skipped)
    means = tally_means(worker.all_reduce(tally))
    seconds = worker.clock() - start
    return means, {
        "learning_rate": rate,  # of the last step
        "first_batch_seconds": start_waited - waited_before,
        "images": images,
        "images_per_second": counted / seconds,
        "data_wait_fraction": (stream.seconds - start_waited) / seconds,
    }


def _require_finite(finite_steps: Tensor, step: int, state: TrainState, rate: float) -> None:
    """Raise `DivergedError` if too many of the last steps are not finite.

    All workers have the same loss and gradient, so that either all of them stop or none.

    Args:
        finite_steps: bool, of the steps of the run up to `step` of the epoch, counted from 1.
    """
    last = finite_steps[-CHECK_FINITE_EVERY:].tolist()
    wrong = [at for at, finite in enumerate(last, step + 1 - len(last)) if not finite]
    allowed = MAX_SKIPPED if state.scaler.is_enabled() else 0
    if len(wrong) > allowed:
        others = f" and at {allowed} of the steps before it" if allowed else ""
        raise DivergedError(
            f"the loss is not finite at step {wrong[allowed]} of epoch {state.epoch + 1}{others}, "
            f"at a learning rate of about {rate:.3g}: use a lower --learning-rate"
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
    steps = plan.epochs * plan.train_steps
    finite_steps = torch.ones(steps, dtype=torch.bool, device=worker.device)
    while state.epoch < plan.epochs:
        row = train_epoch(state, stream, plan, worker, finite_steps)
        if not state.finite():
            raise DivergedError(
                f"a weight is not finite after epoch {state.epoch + 1}: use a lower --learning-rate"
            )
        state.epoch += 1
        state.history.append(row)
        on_epoch_end(state)
