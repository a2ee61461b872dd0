"""The loop: it learns, a seed fixes the run, and a resumed run gives the same weights."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import PLAN, RATE, disks, fresh, lone_worker, scaled, stream

from carvana_ray import images
from carvana_ray.checkpoints import train_state
from carvana_ray.checkpoints.model import from_bytes, to_bytes
from carvana_ray.config.recipes import RECIPES
from carvana_ray.training import loop
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import (
    Batch,
    ModelWithLoss,
    TrainState,
    build_model,
    init_state,
    prepare_batch,
)
from carvana_ray.unet.loss import loss_from_sums
from carvana_ray.unet.network import UNetConfig


def run(state: TrainState, report: Callable[[TrainState], None] = lambda _: None) -> TrainState:
    loop.train(state, stream(PLAN, state.epoch), PLAN, lone_worker(), report)
    return state


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if "second" not in k and "wait" not in k} for row in history
    ]


@pytest.fixture(scope="module")
def whole() -> TrainState:
    return run(fresh())


def test_it_learns(whole: TrainState) -> None:
    rows = whole.history
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["val_dice"] > 0.8


@pytest.mark.parametrize("recipe", ["default", "2017"])
def test_the_same_seed_gives_the_same_loss_twice(recipe: str) -> None:
    first, second = run(fresh(recipe)), run(fresh(recipe))
    assert without_times(first.history) == without_times(second.history)


def test_a_resumed_run_is_the_run_itself(whole: TrainState) -> None:
    saved: list[bytes] = []
    run(fresh(), lambda state: saved.append(to_bytes(state.state_dict())))
    again = fresh()
    again.load_state_dict(from_bytes(saved[1]))
    assert again.epoch == 2
    run(again)
    assert without_times(again.history) == without_times(whole.history)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_run_resumed_from_its_newest_good_checkpoint_is_the_run_itself(
    whole: TrainState, tmp_path: Path
) -> None:
    """Stopped in epoch 5, with the checkpoint of epoch 4 torn: it resumes from epoch 3."""
    folder = str(tmp_path)

    def report(state: TrainState) -> None:
        train_state.save(folder, state.state_dict(), UNetConfig(base=4, norm="batch"))
        if state.epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fresh(), report)
    torn = Path(train_state.epoch_dir(folder, 4)) / train_state.STATE
    torn.write_bytes(torn.read_bytes()[:-1000])
    torch.manual_seed(99)  # as of another process
    again = fresh()
    saved, skipped = train_state.load_latest(folder, UNetConfig(base=4, norm="batch"))
    assert len(skipped) == 1
    assert saved is not None
    again.load_state_dict(saved)
    assert again.epoch == 3
    run(again)
    assert without_times(again.history) == without_times(whole.history)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_the_one_cycle_ends_near_zero_and_the_flat_rate_stays(whole: TrainState) -> None:
    assert whole.history[-1]["learning_rate"] == pytest.approx(RATE / 25e4)
    flat = run(fresh("2017"))
    assert {row["learning_rate"] for row in flat.history} == {RATE}


def test_validation_counts_each_image_once_and_padding_never() -> None:
    """6 images in batches of 4: the means must be those of the 6, computed one by one."""
    state = fresh()
    worker = lone_worker()
    batches = [b for b, at in zip(stream(PLAN), range(7), strict=False) if at >= PLAN.train_steps]
    assert len(batches) == 2
    state.wrapped.eval()
    tally = sum(loop.validation_step(state, batch, worker) for batch in batches)
    gray, soft_mask = disks()
    with torch.no_grad():
        logits = state.model(torch.from_numpy(images.standardize(gray[20:]))[:, None])
    mask, truth = logits[:, 0].numpy() > 0, soft_mask[20:] > 127
    dice = [2 * (m & t).sum() / (m.sum() + t.sum()) for m, t in zip(mask, truth, strict=True)]
    found = loop.tally_means(tally, "val_")
    assert tally[2] == 6
    assert found["val_dice"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert found["val_accuracy"] == pytest.approx((mask == truth).mean(), abs=1e-6)


def test_validation_leaves_the_network_unchanged() -> None:
    state = fresh()
    before = copy.deepcopy(state.model.state_dict())
    state.wrapped.eval()
    loop.validation_step(state, next(stream(PLAN)), lone_worker())
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_workers_average_their_normalization_statistics() -> None:
    """Two workers in turn: each adds the other's values."""
    states = [fresh(), fresh()]
    expected: dict[str, torch.Tensor] = {}
    for rank, state in enumerate(states):
        for number, (name, value) in enumerate(state.model.named_buffers()):
            value.copy_(number + torch.arange(value.numel()).view(value.shape) + 10 * rank)
            if value.is_floating_point():
                expected[name] = value - 5
    others = [state.statistics() for state in states]
    for state, other in zip(states, reversed(others), strict=True):
        worker = lone_worker(count=2, all_reduce=lambda value, other=other: value + other)
        loop.average_statistics(state, worker)
        buffers = dict(state.model.named_buffers())
        assert all(torch.equal(buffers[name], value) for name, value in expected.items())


def test_workers_without_normalization_layers_have_nothing_to_average() -> None:
    worker = lone_worker(count=2, all_reduce=lambda value: pytest.fail("nothing to add"))
    loop.average_statistics(fresh("2017"), worker)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_learns_in_half_precision(compiled: bool) -> None:
    device = torch.device("cuda")
    module = ModelWithLoss(build_model(4, RECIPES["default"], seed=0)).to(device)
    if compiled:
        module.compile()
    steps = PLAN.epochs * PLAN.train_steps
    # A quarter of `RATE`: at Muon's multiple of the whole, float16 overflows in the validation.
    state = init_state(module, module, RECIPES["default"], RATE / 4, steps)
    assert state.scaler.is_enabled()
    batches = ({name: one.to(device) for name, one in batch.items()} for batch in stream(PLAN))
    loop.train(state, batches, PLAN, lone_worker(device=device), lambda _: None)
    assert state.history[-1]["val_dice"] > 0.8


def test_a_nan_loss_stops_the_run() -> None:
    state = fresh()
    with torch.no_grad():
        state.model.head.bias.fill_(float("nan"))
    with pytest.raises(loop.DivergedError, match="epoch 1"):
        run(state)


LONG = BatchPlan(train=2 * 100 + 1, val=4, batch=2, workers=1, epochs=2, seed=3)


class OneBadValue:
    """Batches of tiny images with one value that is not finite; counts the batches taken."""

    def __init__(self, epoch: int, step: int, value: float = float("nan"), of: str = "image"):
        self.at = (epoch - 1) * (LONG.train_steps + LONG.val_steps) + step - 1
        self.value, self.of, self.taken = value, of, 0

    def __iter__(self) -> Iterator[Batch]:
        rng = torch.Generator().manual_seed(0)
        for at in range(LONG.epochs * (LONG.train_steps + LONG.val_steps)):
            batch = {
                "image": torch.randn(2, 16, 16, generator=rng),
                "soft_mask": torch.full((2, 16, 16), 255.0),
                "weight": torch.ones(2),
            }
            if at == self.at:
                batch[self.of][1, 3, 4] = self.value
            self.taken += 1
            yield batch

    def train(self) -> tuple[str, TrainState]:
        """Train until the run stops; return its error and its state."""
        module = ModelWithLoss(build_model(1, RECIPES["default"], seed=0))
        state = init_state(module, module, RECIPES["default"], 1e-3, 1000)
        with pytest.raises(loop.DivergedError) as caught:
            loop.train(state, iter(self), LONG, lone_worker(), lambda _: None)
        return str(caught.value), state


LOOK = loop.CHECK_FINITE_EVERY


@pytest.mark.parametrize(
    ("epoch", "step"),
    [(1, 1), (1, LOOK - 1), (1, LOOK), (1, LOOK + 1), (1, 100), (2, 1), (2, LOOK + 7)],
)
def test_a_nan_image_stops_the_run_and_its_step_is_named(epoch: int, step: int) -> None:
    batches = OneBadValue(epoch, step)
    text, state = batches.train()
    assert f"not finite at step {step} of epoch {epoch}, " in text
    assert "use a lower --learning-rate" in text
    assert "\n" not in text
    assert state.epoch == len(state.history) == epoch - 1
    in_epoch = batches.taken - (epoch - 1) * (LONG.train_steps + LONG.val_steps)
    assert step <= in_epoch < step + LOOK
    assert in_epoch == min(-(-step // LOOK) * LOOK, LONG.train_steps)


@pytest.mark.parametrize(
    ("value", "of"),
    [(float("inf"), "image"), (-float("inf"), "image"), (float("inf"), "soft_mask")],
)
def test_an_infinite_value_stops_the_run(value: float, of: str) -> None:
    text, _ = OneBadValue(1, 5, value, of).train()
    assert "at step 5 of epoch 1, " in text


def test_a_nan_validation_stops_the_run() -> None:
    text, state = OneBadValue(1, LONG.train_steps + 1).train()
    assert text == "val_loss of epoch 1 is nan"
    assert state.history == []


def test_an_epoch_with_infinite_weights_is_not_reported() -> None:
    """The loss is that of the weights before the step, so it cannot show the last step."""
    state = fresh()
    steps = iter(range(1, 1000))

    def after(*_: object) -> None:  # the last step of the second epoch ends in infinity
        if next(steps) == 2 * PLAN.train_steps:
            state.model.head.bias.detach().fill_(float("inf"))

    state.optimizer.register_step_post_hook(after)
    reported: list[int] = []
    with pytest.raises(loop.DivergedError, match="epoch 2"):
        run(state, lambda state: reported.append(state.epoch))
    assert reported == [1]


def test_padding_changes_neither_the_step_nor_the_counts() -> None:
    """Without normalization layers, whose statistics include the padding."""
    batch = next(stream(PLAN))
    filled = {name: torch.cat([value, value[-1:]]) for name, value in batch.items()}
    filled["image"][-1] = 1e3
    filled["soft_mask"][-1] = 0
    filled["weight"][-1] = 0
    one, other = fresh("2017"), fresh("2017")
    counted, _ = loop.train_step(one, batch, lone_worker())
    torch.testing.assert_close(loop.train_step(other, filled, lone_worker())[0], counted)
    assert counted[2] == 4
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(
            other.model.state_dict()[name], value, rtol=1e-4, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("state_of", [fresh, scaled])
@pytest.mark.parametrize("times", [0.1, 10])
def test_the_gradient_is_clipped_to_its_limit_and_without_the_scale_of_the_loss(
    state_of: Callable[[], TrainState], times: float
) -> None:
    state, batch = state_of(), next(stream(PLAN))
    assert state.grad_clip_norm == 1
    raw = copy.deepcopy(state.module)
    loss_from_sums(raw(*prepare_batch(batch, training=True))[0]).backward()
    expected = torch.cat([value.grad.flatten() for value in raw.parameters()])
    state.grad_clip_norm = times * expected.norm().item()
    found: list[torch.Tensor] = []

    def at_step(*_: object) -> None:
        found.extend(value.grad.flatten() for value in state.module.parameters())

    state.optimizer.register_step_pre_hook(at_step)
    loop.train_step(state, batch, lone_worker())
    gradient = torch.cat(found)
    torch.testing.assert_close(gradient, expected * min(times, 1), rtol=1e-3, atol=1e-6)
    assert gradient.norm().item() <= state.grad_clip_norm * 1.0001


def test_time_spent_waiting_for_batches_is_measured() -> None:
    """The clock runs only while a batch is fetched: all of the time is waiting."""
    now = [0.0]

    def slow() -> Iterator[Batch]:
        for batch in stream(PLAN):
            now[0] += 1.0
            yield batch

    state = fresh()
    loop.train(state, slow(), PLAN, lone_worker(clock=lambda: now[0]), lambda _: None)
    row = state.history[0]
    assert row["data_wait_fraction"] == 1.0
    assert row["images_per_second"] == pytest.approx(PLAN.batch)
    assert row["first_batch_seconds"] == 1.0
