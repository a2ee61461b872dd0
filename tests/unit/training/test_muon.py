"""Muon: its steps are orthogonal matrices, resumed runs go on, skipped steps change nothing."""

import copy
import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from support.training import PLAN, assert_equal, lone_worker, spoil, stream
from torch import nn

from carvana_ray.checkpoints.model import from_bytes, to_bytes
from carvana_ray.config.recipes import Recipe
from carvana_ray.training import loop
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.muon import (
    MOMENTUM,
    Muon,
    newton_schulz,
    newton_schulz_factor,
    orthogonalize,
)
from carvana_ray.training.state import ModelWithLoss, TrainState, build_model, init_state

RATIO = 20.0


def give_gradients(network: nn.Module, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.grad = torch.empty_like(weight).normal_(generator=rng)  # with its strides


@pytest.mark.parametrize("shape", [(3, 32, 200), (1, 64, 64), (2, 48, 20)])
def test_singular_values_are_near_one_and_singular_vectors_stay(shape: tuple[int, ...]) -> None:
    rank = min(shape[1:])
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    u, v = u[..., :rank], v[:, :rank]
    values = torch.logspace(0, -1, rank)
    found = orthogonalize(u * values @ v)
    inner = u.mT @ found @ v.mT
    turned = torch.diagonal(inner, dim1=1, dim2=2)
    assert (turned > 0.68).all()
    assert (turned < 1.21).all()
    assert torch.allclose(inner, torch.diag_embed(turned), atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 72), (1, 64, 64), (2, 48, 20)])
def test_the_steps_of_cpus_are_those_of_gpus(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    x *= torch.logspace(0, -4, shape[2])
    x /= torch.linalg.norm(x, dim=(1, 2), keepdim=True)
    on_cpu, on_gpu = newton_schulz_factor(x @ x.mT) @ x, newton_schulz(x)
    assert torch.linalg.norm(on_cpu - on_gpu) < 1e-3 * torch.linalg.norm(on_gpu)


def test_zeros_next_to_a_matrix_do_not_matter() -> None:
    matrix = torch.randn(1, 24, 60, generator=torch.Generator().manual_seed(1))
    padded = orthogonalize(torch.cat([matrix, torch.zeros(1, 24, 30)], dim=2))
    assert torch.allclose(padded[..., :60], orthogonalize(matrix), atol=1e-5)
    assert not padded[..., 60:].any()
    assert not orthogonalize(torch.zeros(1, 4, 4)).any()


def test_inner_convolutions_step_as_with_torchs_muon_and_other_weights_as_with_adam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # torch's, also on a CPU
    network = build_model(4, Recipe(unshuffle=2), seed=0)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    inner = {layer.weight for layer in layers} - {layers[0].weight, network.head.weight}
    assert len(inner) == 17 + 4
    others = [weight for weight in network.parameters() if weight not in inner]
    copies = {weight: nn.Parameter(weight.detach().clone().flatten(1)) for weight in inner}
    same = {weight: nn.Parameter(weight.detach().clone()) for weight in others}
    before = {weight: value.detach().clone() for weight, value in (copies | same).items()}
    adam = torch.optim.Adam(same.values(), lr=1e-3)
    muon = torch.optim.Muon(
        copies.values(), 1e-3 * RATIO, weight_decay=0, momentum=MOMENTUM, nesterov=True
    )
    optimizer = Muon(network, 1e-3, RATIO)
    for step in range(3):
        give_gradients(network, step)
        for weight, copied in (copies | same).items():
            assert weight.grad is not None
            copied.grad = weight.grad.reshape(copied.shape)
        for each in (adam, muon, optimizer):
            each.step()
    for weight, value in same.items():
        assert torch.allclose(weight, value, rtol=1e-5, atol=1e-8)
    for weight, value in copies.items():
        moved, expected = weight.flatten(1) - before[weight], value - before[weight]
        assert torch.linalg.norm(moved - expected) < 1e-3 * torch.linalg.norm(expected)


def test_the_blocks_of_an_encoder_stay_and_all_other_weights_take_steps() -> None:
    network = build_model(4, Recipe(unshuffle=2), seed=0, encoder="lite0")
    optimizer = Muon(network, 1e-3, RATIO)
    before = copy.deepcopy(network.state_dict())
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    optimizer.step()
    moved = {k for k, v in network.named_parameters() if not torch.equal(v, before[k])}
    expected = {k for k, v in network.named_parameters() if v.requires_grad}
    assert moved == expected
    assert any(name.startswith("encoder.norms.") for name in moved)
    assert not any(name.startswith("encoder.blocks.") for name in moved)


@pytest.mark.parametrize("taken_before", [0, 1])
def test_a_skipped_step_changes_nothing(taken_before: int) -> None:
    """As `GradScaler` skips on a GPU: the optimizer gets a tensor and is called all the same."""
    network = build_model(4, Recipe(), seed=0)
    optimizer = Muon(network, 1e-3, RATIO)
    for seed in range(taken_before):
        give_gradients(network, seed)
        optimizer.step()
    weights = copy.deepcopy(network.state_dict())
    states = copy.deepcopy(list(optimizer.state.values()))
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, math.nan)
    optimizer.found_inf, optimizer.grad_scale = torch.ones(()), None
    optimizer.step()
    assert_equal(network.state_dict(), weights)
    for found, before in itertools.zip_longest(optimizer.state.values(), states, fillvalue={}):
        for name, value in found.items():
            assert torch.equal(value, before.get(name, torch.zeros_like(value))), name
    give_gradients(network, 5)
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert not any(torch.equal(value, weights[name]) for name, value in network.named_parameters())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize("at", [0, 2])
def test_with_loss_scaling_an_overflow_skips_the_step(at: int) -> None:
    torch.set_num_threads(1)
    skipping, without = (with_muon(PLAN, schedule="flat") for _ in range(2))
    for state in (skipping, without):
        state.scaler = torch.amp.GradScaler("cpu")
    spoil(skipping, "gradient", at)
    calls: list[object] = []
    skipping.optimizer.register_step_pre_hook(lambda *_: calls.append(_))
    for number, batch in enumerate(itertools.islice(stream(PLAN), 4)):
        loop.train_step(skipping, batch, lone_worker())
        if number != at:
            loop.train_step(without, batch, lone_worker())
    assert len(calls) == 4, "the scaler does not wait to see whether a step is skipped"
    assert skipping.scaler.get_scale() == without.scaler.get_scale() / 2
    for name, value in without.model.named_parameters():
        assert torch.equal(skipping.model.state_dict()[name], value), name
    assert_equal(skipping.optimizer.state_dict(), without.optimizer.state_dict())


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    torch.set_num_threads(1)
    plan = dataclasses.replace(PLAN, epochs=2)
    saved: list[bytes] = []
    whole, resumed = (with_muon(plan) for _ in range(2))
    loop.train(
        whole, stream(plan), plan, lone_worker(), lambda s: saved.append(to_bytes(s.state_dict()))
    )
    resumed.load_state_dict(from_bytes(saved[0]))
    loop.train(resumed, stream(plan, 1), plan, lone_worker(), lambda _: None)
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert_equal(resumed.optimizer.state_dict(), whole.optimizer.state_dict())


def test_momenta_stay_where_a_recorded_step_expects_them() -> None:
    optimizer = Muon(build_model(4, Recipe(), seed=0), 1e-3, RATIO)
    momenta = [values["momentum"] for values in optimizer.state.values()]
    assert len(momenta) == 5
    saved = from_bytes(to_bytes(optimizer.state_dict()))
    for values in saved["state"].values():
        values["momentum"].fill_(3)
    optimizer.load_state_dict(saved)
    for values, momentum in zip(optimizer.state.values(), momenta, strict=True):
        assert values["momentum"] is momentum
        assert (momentum == 3).all()


def with_muon(plan: BatchPlan, **changes: Any) -> TrainState:
    recipe = Recipe(muon_ratio=RATIO, **changes)
    module = ModelWithLoss(build_model(4, recipe, seed=0))
    state = init_state(module, module, recipe, 2e-3, plan.epochs * plan.train_steps)
    assert isinstance(state.optimizer, Muon)
    return state
