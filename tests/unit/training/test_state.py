"""The training state: it is complete, and its images are prepared as for prediction."""

import copy
import itertools
import math

import numpy as np
import torch
from support.training import PLAN, fresh, lone_worker, scaled, spoil, stream

from carvana_ray import images
from carvana_ray.checkpoints.model import from_bytes, to_bytes
from carvana_ray.config.recipes import Recipe
from carvana_ray.training.loop import train_step
from carvana_ray.training.state import ModelWithLoss, build_model, prepare_batch
from carvana_ray.unet import loss


def test_random_numbers_resume() -> None:
    state = fresh()
    torch.manual_seed(5)
    torch.rand(7)
    saved = from_bytes(to_bytes(state.state_dict()))
    assert torch.equal(saved["random"], torch.get_rng_state())
    expected = torch.rand(9)
    torch.manual_seed(6)
    state.load_state_dict(saved)
    assert torch.equal(torch.rand(9), expected)


def test_the_scale_of_the_loss_resumes() -> None:
    state = scaled()
    spoil(state, "gradient", 0)
    for batch in itertools.islice(stream(PLAN), 3):
        train_step(state, batch, lone_worker())
    saved = from_bytes(to_bytes(state.state_dict()))
    again = scaled()
    again.load_state_dict(saved)
    assert again.scaler.state_dict() == state.scaler.state_dict()
    assert again.scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale() / 2
    assert again.scaler.state_dict()["_growth_tracker"] == 2


def test_the_statistics_are_all_float_buffers_in_turn() -> None:
    state = fresh()
    named = {k: v for k, v in state.model.named_buffers() if v.is_floating_point()}
    assert len(named) == 2 * 18
    for number, value in enumerate(named.values()):
        value.copy_(number + torch.arange(len(value)) / 1000)
    before, saved = copy.deepcopy(named), state.statistics()
    for value in named.values():
        value.fill_(math.nan)
    assert saved.isfinite().all(), "a copy"
    state.load_statistics(saved)
    assert all(torch.equal(value, before[name]) for name, value in named.items())


def test_one_infinite_weight_is_found() -> None:
    state = fresh()
    assert state.finite()
    for value in state.model.state_dict().values():
        if value.is_floating_point():
            before = value.clone()
            value[(-1,) * value.ndim] = float("inf")
            assert not state.finite()
            value.copy_(before)
    assert state.finite()


def test_images_are_transformed_for_training_only_and_standardized_as_for_prediction() -> None:
    rng = np.random.default_rng(0)
    gray = torch.from_numpy(rng.integers(0, 256, (2, 16, 24), dtype=np.uint8))
    soft_mask = torch.from_numpy(rng.integers(0, 256, (2, 16, 24), dtype=np.uint8))
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).repeat(2, 1, 1)
    batch = {"image": gray, "soft_mask": soft_mask, "weight": torch.ones(2), "affine": mirror}
    as_predicted = images.standardize(gray)
    image, target, weight = prepare_batch(batch, training=False)
    assert torch.equal(image, as_predicted)
    assert torch.equal(target, soft_mask)
    assert torch.equal(weight, batch["weight"])
    image, target, _ = prepare_batch(batch, training=True)
    assert torch.allclose(image, as_predicted.flip(-1), atol=1e-3)
    assert torch.allclose(target, soft_mask.flip(-1).float(), atol=0.1)
    ready = {"image": as_predicted, "soft_mask": soft_mask, "weight": torch.ones(2)}
    assert prepare_batch(ready, training=True)[0] is as_predicted, "not a second time"


def test_edges_count_more_in_training_and_once_in_evaluation() -> None:
    module = ModelWithLoss(build_model(4, Recipe(norm="none", unshuffle=2), seed=0), 5.0)
    batch = next(stream(PLAN))
    prepared = module.prepare(batch, training=True)
    target = batch["soft_mask"][:, None] / 255
    logits = module.network(prepared[0][:, None])
    once = loss.loss_sums(logits, target)
    edges = loss.loss_sums(logits, target, None, loss.edge_weights(target, 2, 5.0))
    assert edges[0] > 1.2 * once[0]
    assert torch.equal(module.train()(*prepared)[0], edges)
    assert torch.equal(module.eval()(*prepared)[0], once)
