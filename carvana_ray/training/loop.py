"""The training loop over a stream of batches. torch only: no Ray, no files, no clock of its own.

No value is read back within a step, so that on a GPU the CPU runs ahead of the device.

With loss scaling (float16) single steps may overflow. Such a step is skipped: weights, optimizer
and normalization statistics stay as they were before it. Without loss scaling it ends the training.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import Batch, Row, TrainState
from carvana_ray.training.step import Step, WorkerContext, evaluate, tally_of


class DivergedError(RuntimeError):
    """The loss or a weight is NaN or infinite."""


CHECK_FINITE_EVERY = 64  # steps between looks at the loss
# Of the last `CHECK_FINITE_EVERY` steps. A new scaler has to skip a few steps to find its scale.
MAX_SKIPPED = 8

log = logging.getLogger(__name__)


def train_step(state: TrainState, batch: Batch, worker: WorkerContext) -> tuple[Tensor, Tensor]:
    """Take one optimizer step for the loss of the whole batch over all workers, or skip it.

    Returns:
        the tally of the batch, float64 [5]: loss and soft Dice, each times the number of images,
        then this worker's `metrics.METRICS`; zeros if the loss of a skipped step is not finite.
        And bool []: whether the loss, and with loss scaling the gradient, is finite.
    """
    captured = state.captured
    found = captured.train(batch) if captured else Step(state, worker, batch).run()
    one = torch.ones((), device=worker.device)
    scale = state.scaler.scale(one)
    state.scaler.step(state.optimizer)  # skipped if the gradient is not finite
    state.scaler.update()
    state.schedule.step()
    if state.scaler.is_enabled():
        # A smaller scale cannot help the loss, and would come near zero after some such steps.
        state.scaler.update(state.scaler.scale(one).where(found.finite, scale))
    return (found.tally.clone(), found.taken.clone()) if captured else (found.tally, found.taken)


def validation_step(state: TrainState, batch: Batch, worker: WorkerContext) -> Tensor:
    """Return the tally of one validation batch, as that of `train_step`."""
    own, counts = state.captured.evaluate(batch) if state.captured else evaluate(state, batch)
    return tally_of(worker.all_reduce(own), counts)


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
    check = _FiniteCheck(state, finite_steps, late=worker.device.type == "cuda")
    for step in range(plan.train_steps):
        if step == 1:
            start, start_waited = worker.clock(), stream.seconds
            counted -= plan.batch
        rate = state.optimizer.param_groups[0]["lr"]
        batch_tally, finite_steps[first + step] = train_step(state, next(stream), worker)
        tally += batch_tally
        last = step + 1 == plan.train_steps
        if last or (step + 1) % CHECK_FINITE_EVERY == 0:
            # The last look waits for the device, so that the clock below covers all steps.
            check.look(first + step + 1, step + 1, rate, last)
        worker.progress((first + step + 1) * plan.batch)
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


class _FiniteCheck:
    """Ends the training if too many of the last steps are not finite.

    All workers have the same loss and gradient, so that either all of them stop or none.

    Args:
        finite_steps: bool, a value for each step of the run.
        late: judge steps at the next look, so that the GPU never waits for this process.
    """

    def __init__(self, state: TrainState, finite_steps: Tensor, late: bool) -> None:
        self._state, self._finite_steps, self._late = state, finite_steps, late
        self._judge: Callable[[], None] = lambda: None

    def look(self, done: int, step: int, rate: float, last: bool) -> None:
        """Look at the steps of the run before `done`.

        Args:
            step: that of the epoch, counted from 1.
            rate: its learning rate.
            last: it is the last of the epoch, and judged at once.

        Raises:
            DivergedError: too many steps are not finite.
        """
        recent = self._finite_steps[max(0, done - CHECK_FINITE_EVERY) : done]
        flags = recent.to("cpu", non_blocking=True)
        copied = torch.cuda.Event() if recent.is_cuda else None
        if copied:
            copied.record()

        def judge() -> None:
            if copied:
                copied.synchronize()
            _require_finite(flags.tolist(), step, self._state, rate)

        self._judge()
        self._judge = judge
        if last or not self._late:
            judge()
            self._judge = lambda: None


def _require_finite(last: list[bool], step: int, state: TrainState, rate: float) -> None:
    """Raise `DivergedError` if too many of the last steps, up to `step`, are not finite."""
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
