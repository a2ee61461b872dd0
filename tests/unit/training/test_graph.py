"""Recorded steps: they are the eager ones, and an attempt to record leaves no trace."""

import copy
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from support import steps
from support.training import PLAN, assert_equal, fresh, lone_worker, scaled, spoil, stream
from torch import Tensor

from carvana_ray.checkpoints.model import from_bytes, to_bytes
from carvana_ray.training import loop
from carvana_ray.training.graph import WARM_UPS, CapturedSteps, capture
from carvana_ray.training.state import Batch, TrainState

TWO = dataclasses.replace(PLAN, epochs=2)


class Rerun:
    """Instead of a recording the function itself, which reads and writes the same tensors."""

    def __init__(self, failing: int = -1) -> None:
        self.recorded, self._failing = 0, failing

    def warm_up(self, function: Callable[[], None]) -> None:
        for _ in range(WARM_UPS):
            function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        function()
        self.recorded += 1
        if self.recorded == self._failing:
            raise RuntimeError("CUDA error: operation not permitted\nSee the manual")
        return function


def everything(state: TrainState) -> dict[str, object]:
    """All of a state that can change, without the times in its history."""
    found = from_bytes(to_bytes(state.state_dict()))
    for row in found["history"]:
        for name in [name for name in row if "second" in name or "wait" in name]:
            del row[name]
    gradients = {k: value.grad for k, value in state.module.named_parameters()}
    pending = dict(getattr(state.scaler, "_per_optimizer_states", {}))
    return {**found, "gradients": gradients, "pending": pending}


@pytest.mark.parametrize("failing", [-1, 1, 2])
@pytest.mark.parametrize("state_of", [fresh, scaled, lambda: fresh("2017")])
def test_recording_leaves_the_state_unchanged_also_if_it_fails(
    state_of: Callable[[], TrainState], failing: int, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of()
    loop.train_step(state, next(stream(PLAN)), lone_worker())
    state.optimizer.zero_grad()
    before = everything(state)
    with caplog.at_level(logging.WARNING):
        capture(state, next(stream(PLAN)), lone_worker(), Rerun(failing))
    if failing > 0:
        assert state.captured is None
        (record,) = caplog.records
        assert "RuntimeError: CUDA error: operation not permitted" in record.getMessage()
        assert "\n" not in record.getMessage()
    else:
        assert isinstance(state.captured, CapturedSteps)
        assert not caplog.records
        state.optimizer.zero_grad()  # a recording owns the gradients
    assert_equal(everything(state), before)


@pytest.mark.parametrize("failing", [-1, 2])
@pytest.mark.parametrize("state_of", [fresh, scaled, lambda: fresh("2017")])
def test_a_run_is_the_eager_run(state_of: Callable[[], TrainState], failing: int) -> None:
    states = [state_of(), state_of()]
    capture(states[0], next(stream(TWO)), lone_worker(), Rerun(failing))
    for state in states:
        spoil(state, "gradient", 1) if state.scaler.is_enabled() else None
        loop.train(state, stream(TWO), TWO, lone_worker(), lambda _: None)
    assert_equal(everything(states[0]), everything(states[1]))


def test_a_batch_is_copied() -> None:
    """The memory of a block is used again while the step that read it may still run."""
    state, batch = fresh(), next(stream(PLAN))
    capture(state, batch, lone_worker(), Rerun())
    assert state.captured
    kept = copy.deepcopy(batch)
    state.captured._copy({name: value + 1 for name, value in batch.items()})
    assert_equal(batch, kept)
    assert_equal(state.captured._inputs, {name: value + 1 for name, value in kept.items()})


def test_with_several_workers_nothing_is_recorded_that_waits_for_another_worker() -> None:
    state, recorder = fresh(), Rerun()

    def refuse(value: Tensor) -> Tensor:
        raise AssertionError("a worker whose recording fails would leave the others waiting")

    worker = lone_worker(count=2, all_reduce=refuse)
    capture(state, next(stream(PLAN)), worker, recorder)
    assert state.captured
    assert recorder.recorded == 5, "three parts of a step, validation, and Muon's steps"
    with pytest.raises(AssertionError, match="waiting"):
        loop.train_step(state, next(stream(PLAN)), worker)


# The following tests need a GPU.

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
SIZE = (64, 96)
GPU_STEPS = 40


def gpu_stream(recipe: str, seed: int = 0) -> Iterator[Batch]:
    return steps.batches(recipe, SIZE, 4, seed, torch.device("cuda"))


def gpu_state(recipe: str, captured: bool) -> TrainState:
    return steps.new_state(recipe, 8, GPU_STEPS, next(gpu_stream(recipe, 9)), captured)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that give the same bits in each run."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.gpu
@on_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("recipe", ["default", "best", "2017"])
def test_a_gpu_gives_the_losses_of_eager_steps_also_when_resumed(recipe: str) -> None:
    eager, captured, again = (gpu_state(recipe, on) for on in (False, True, True))
    losses, taken = steps.take(eager, gpu_stream(recipe), GPU_STEPS)
    source = gpu_stream(recipe)
    first, _ = steps.take(captured, source, GPU_STEPS // 2)
    again.load_state_dict(from_bytes(to_bytes(captured.state_dict())))
    rest, _ = steps.take(again, source, GPU_STEPS - GPU_STEPS // 2)
    torch.testing.assert_close(torch.cat([first, rest]), losses, rtol=1e-3, atol=1e-4)
    assert taken.count(False) <= loop.MAX_SKIPPED


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("fault", ["image", "scale"])
def test_a_gpu_skips_a_step_that_overflows(fault: str) -> None:
    state = gpu_state("default", captured=True)
    source = gpu_stream("default")
    steps.take(state, source, 3)
    batch, before = next(source), copy.deepcopy(state.model.state_dict())
    scale = state.scaler.get_scale()
    if fault == "image":
        batch["image"][0, 3, 4] = math.inf
    else:
        state.scaler.update(2.0**100)
    _, taken = steps.take(state, iter([batch]), 1)
    assert taken == [False]
    for name, value in state.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), name
    assert state.scaler.get_scale() == (scale if fault == "image" else 2.0**99)
    state.scaler.update(scale)
    _, taken = steps.take(state, source, 3)
    assert taken == [True] * 3


@pytest.mark.gpu
@on_gpu
def test_a_failed_recording_leaves_a_gpu_usable(caplog: pytest.LogCaptureFixture) -> None:
    state = gpu_state("default", captured=False)
    handle = state.model.head.register_forward_hook(
        lambda *values: values[-1].sum().item() and None
    )
    capture(state, next(gpu_stream("default")), steps.worker_on(torch.device("cuda")))
    handle.remove()
    assert state.captured is None
    assert "not recorded" in caplog.text
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    losses, _ = steps.take(state, gpu_stream("default"), 3)
    assert losses.isfinite().all()


@pytest.mark.gpu
@on_gpu
@pytest.mark.usefixtures("exact")
def test_a_gpu_validates_as_eager_steps_do() -> None:
    worker = steps.worker_on(torch.device("cuda"))
    tallies = []
    for captured in (False, True):
        state = gpu_state("default", captured)
        steps.take(state, gpu_stream("default"), 5)
        state.wrapped.eval()
        source = gpu_stream("default", 5)
        tallies.append(
            torch.stack([loop.validation_step(state, next(source), worker) for _ in "ab"])
        )
    torch.testing.assert_close(tallies[1], tallies[0], rtol=1e-4, atol=1e-4)
    assert not torch.equal(tallies[0][0], tallies[0][1])
