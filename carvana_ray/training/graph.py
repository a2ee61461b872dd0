"""Training and validation steps as CUDA graphs: recorded once, then launched as a whole.

A step has some 600 kernels. Launched one by one they take the CPU longer than the GPU: at batches
of 8 the GPU waits for half of the time. A graph also leaves the interpreter to the threads that
fetch batches.

Adam's step stays outside: the one-cycle schedule changes its first beta, a number that a graph
would keep as it was when it was recorded.
"""

import contextlib
import copy
import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from carvana_ray.training.muon import Muon
from carvana_ray.training.state import Batch, TrainState
from carvana_ray.training.step import Outcome, Step, WorkerContext, evaluate

WARM_UPS = 3  # runs before a recording: they load, and if enabled compile, kernels

log = logging.getLogger(__name__)

Replay = Callable[[], None]


class Recorder(Protocol):
    """Records functions that only launch kernels."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function `WARM_UPS` times."""

    def record(self, function: Callable[[], None]) -> Replay:
        """Return what repeats the kernels of a function on the same memory."""


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory. They must be replayed in their order."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function `WARM_UPS` times on the stream of the recordings."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> Replay:
        """Return what launches the kernels of a function as one graph.

        Other threads may copy blocks to the GPU meanwhile, hence ``thread_local``.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                function()
        except BaseException:  # torch may leave both as they are during a recording
            torch.cuda.set_stream(current)
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(current.device_index, self._pool)
            raise
        return graph.replay


class CapturedSteps:
    """The steps of a state, recorded. All results are overwritten by the next step.

    With several workers the parts of a step are recorded one by one, and the workers add up values
    between them. So a worker whose recording fails can go on eagerly while the others replay.

    Args:
        example: a batch; all batches have its shapes.
    """

    def __init__(
        self, state: TrainState, example: Batch, worker: WorkerContext, recorder: Recorder
    ) -> None:
        self._state = state
        self._inputs = {name: value.clone() for name, value in example.items()}
        self._step = step = Step(state, worker, self._inputs)
        state.wrapped.train()
        recorder.warm_up(self._warm_up)
        if worker.count == 1:
            self._parts = [recorder.record(self._run)]
        else:
            self._parts = [
                recorder.record(step.forward),
                step.reduce_sums,
                recorder.record(step.backward),
                step.sum_gradients,
                recorder.record(self._judge),
            ]
        state.wrapped.eval()
        recorder.warm_up(self._evaluate)
        self._replay_evaluation = recorder.record(self._evaluate)
        if isinstance(state.optimizer, Muon):  # last: it must not outlive a failed recording
            state.optimizer.record(recorder)

    def train(self, batch: Batch) -> Outcome:
        """Do what `Step.run` does with a batch."""
        self._copy(batch)
        for part in self._parts:
            part()
        if self._unscaled:  # as if `unscale_` had been called just now
            self._state.scaler._per_optimizer_states[id(self._state.optimizer)] = {**self._unscaled}
        return self._step.outcome

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Do what `step.evaluate` does with a batch."""
        self._copy(batch)
        self._replay_evaluation()
        return self._sums

    def _copy(self, batch: Batch) -> None:
        torch._foreach_copy_(list(self._inputs.values()), [batch[name] for name in self._inputs])

    def _warm_up(self) -> None:
        """Run what is recorded, without a wait for another worker."""
        self._step.forward()
        self._step.backward()
        self._judge()

    def _run(self) -> None:
        self._step.forward()
        self._step.reduce_sums()
        self._step.backward()
        self._judge()

    def _judge(self) -> None:
        self._step.judge()
        self._unscaled = _take_unscaled(self._state)

    @torch.no_grad()
    def _evaluate(self) -> None:
        self._sums = evaluate(self._state, self._inputs)


def capture(
    state: TrainState, example: Batch, worker: WorkerContext, recorder: Recorder | None = None
) -> None:
    """Let the steps of a state be replayed from now on; leave the state as it is otherwise.

    If that fails, a warning says why, and steps stay eager.

    Args:
        example: a batch of finite values; all batches have its shapes.
        recorder: None for one on the worker's GPU.
    """
    before = copy.deepcopy(state.model.state_dict())
    state.scaler.scale(torch.ones((), device=worker.device))  # creates its tensors, outside of all
    try:
        recorder = recorder or CudaRecorder(worker.device)
        state.captured = CapturedSteps(state, example, worker, recorder)
    except Exception as error:  # drivers, memory, kernels of any library
        reason = str(error).partition("\n")[0]
        log.warning(
            "steps are not recorded as CUDA graphs, so the GPU is slower: %s: %s",
            type(error).__name__,
            reason,
        )
        state.optimizer.zero_grad(set_to_none=True)
        _take_unscaled(state)
    state.model.load_state_dict(before)


def _take_unscaled(state: TrainState) -> dict[str, object]:
    """Return what the scaler keeps from `unscale_` to `step`, and let it forget that."""
    if not state.scaler.is_enabled():
        return {}
    return state.scaler._per_optimizer_states.pop(id(state.optimizer), {})
