"""A training step up to the optimizer's: loss, gradient, and whether both are finite.

The parts of a step hand on their results as attributes, so that each part can be recorded as a CUDA
graph (see `graph`). No part reads a value back.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from carvana_ray.training.state import Batch, TrainState
from carvana_ray.unet import loss


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


class Outcome(NamedTuple):
    """What a step finds about its batch.

    Attributes:
        tally: float64 [5], see `loop.train_step`; zeros if a skipped step's loss is not finite.
        finite: bool [], whether the loss is finite.
        taken: bool [], whether the gradient is finite too; without loss scaling that of the loss.
    """

    tally: Tensor
    finite: Tensor
    taken: Tensor


class Step:
    """The parts of a step: the gradient of the whole batch's loss, unscaled and clipped.

    Workers add up values in `reduce_sums` and `sum_gradients` alone.

    Args:
        inputs: this worker's batch.
    """

    def __init__(self, state: TrainState, worker: WorkerContext, inputs: Batch) -> None:
        self._state, self._worker, self._inputs = state, worker, inputs
        self._sums = torch.ones(4, device=worker.device)  # `loss.loss_sums` of all workers
        self._averaged = state.wrapped is not state.module  # DDP averages gradients

    def run(self) -> Outcome:
        """Run all parts in turn, each value with its kernel launches."""
        self.forward()
        self.reduce_sums()
        self.backward()
        self.sum_gradients()
        self.judge()
        return self.outcome

    def forward(self) -> None:
        """Compute this worker's sums."""
        state = self._state
        # Those before the step, for the case that it is skipped.
        self._statistics = state.statistics() if state.scaler.is_enabled() else None
        self._own, self._counts = state.wrapped(*state.module.prepare(self._inputs, training=True))

    def reduce_sums(self) -> None:
        """Add up the sums of all workers."""
        self._sums.copy_(loss.reduce_sums(self._own.detach(), self._worker.all_reduce))

    def backward(self) -> None:
        """Backpropagate through this worker's sums."""
        state, sums = self._state, self._sums.detach().requires_grad_()
        value = loss.loss_from_sums(sums)
        # DDP averages gradients over workers where they must add up, hence the count. The factor is
        # NaN if the loss is not finite: its gradient may be finite, and the scaler judges gradients
        # only.
        count = self._worker.count if self._averaged else 1
        factor = count + 0 * value.detach()
        (gradient,) = torch.autograd.grad(state.scaler.scale(value * factor), sums)
        state.optimizer.zero_grad(set_to_none=True)
        self._own.backward(gradient)
        self._finite = factor == count

    def sum_gradients(self) -> None:
        """Add up the gradients of all workers, unless DDP has done so."""
        if self._worker.count > 1 and not self._averaged:
            sum_gradients(self._state.module.parameters(), self._worker.all_reduce)

    @torch.no_grad()
    def judge(self) -> None:
        """Unscale and clip the gradient; undo the step's statistics if it is not finite."""
        state = self._state
        state.scaler.unscale_(state.optimizer)
        # A few batches have gradients ten times the usual norm. One such step throws Adam's moments
        # off for many steps. Clipping does not synchronize with the GPU.
        limit = state.grad_clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(state.module.parameters(), limit)
        tally, finite, taken = tally_of(self._sums, self._counts), self._finite, self._finite
        if self._statistics is not None:
            taken = norm.isfinite()
            state.load_statistics(state.statistics().where(taken, self._statistics))
            tally = tally.where(finite, 0)
        self.outcome = Outcome(tally, finite, taken)


@torch.no_grad()
def sum_gradients(weights: Iterable[nn.Parameter], all_reduce: Callable[[Tensor], Tensor]) -> None:
    """Replace each gradient by its sum over all workers, in one reduction."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    # In the order of memory, which is that of the weights and so the same in all workers.
    flat = [value.as_strided((value.numel(),), (1,)) for value in gradients]
    total = all_reduce(torch.cat(flat))
    torch._foreach_copy_(flat, total.split([len(value) for value in flat]))


@torch.no_grad()
def evaluate(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return `loss.loss_sums` and `metrics.metric_sums` of a validation batch."""
    # `forward` bypasses DDP's hooks, and the compiled network, which is that of the training step.
    return state.module.forward(*state.module.prepare(batch, training=False))


@torch.no_grad()
def tally_of(sums: Tensor, counts: Tensor) -> Tensor:
    """Return the tally, float64 [5], of the sums of a batch and this worker's counts."""
    values = torch.stack([loss.loss_from_sums(sums), loss.soft_dice(sums)]).double()
    return torch.cat([values * counts[0], counts])
