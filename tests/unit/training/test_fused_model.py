"""Network, loss and metrics of folded batches in one module: the sums of `ModelWithLoss`."""

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from support import steps
from torch import Tensor, nn

from carvana_ray.config.recipes import RECIPES
from carvana_ray.training.fused_model import FusedModelWithLoss, with_loss
from carvana_ray.training.fused_unet import FusedTrainingUNet
from carvana_ray.training.state import ModelWithLoss, build_model
from carvana_ray.unet.network import UNet

CPU = torch.device("cpu")


class Unfolding(nn.Module):
    """In place of `FusedTrainingUNet`, which needs a GPU: folded image in, folded logits out."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        fold = self.network.fold
        logits = F.pixel_unshuffle(self.network(F.pixel_shuffle(x[:, : fold**2], fold)), fold)
        return torch.cat([logits, torch.full_like(logits, 9)], dim=1)  # channels to ignore


@pytest.mark.parametrize("edge_weight", [1.0, 5.0])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("recipe", ["default", "best"])
def test_the_sums_are_those_of_the_plain_module(
    recipe: str, training: bool, edge_weight: float
) -> None:
    plain = ModelWithLoss(build_model(4, RECIPES[recipe], seed=0), edge_weight)
    fused = cast(FusedTrainingUNet, Unfolding(plain.network))
    module = FusedModelWithLoss(plain.network, fused, edge_weight)
    batch = next(steps.batches(recipe, (72, 90), 2, 0, CPU))  # neither side fits the blocks
    found = []
    for one in (plain, module):
        one.train(training)
        sums, counts = one(*one.prepare(batch, training))
        (gradient,) = torch.autograd.grad(sums[:3].sum(), plain.network.head.weight)
        found.append((sums.detach(), counts, gradient))
    for value, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=3e-3, atol=1e-6)
    assert list(dict(module.named_parameters())) == list(dict(plain.named_parameters()))


def test_a_cpu_takes_the_plain_module() -> None:
    module = with_loss(build_model(4, RECIPES["default"], seed=0), CPU, 5.0)
    assert isinstance(module, ModelWithLoss)
    assert module.edge_weight == 5
