"""The loss against its formula, and over workers against one worker with the whole batch."""

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from carvana_ray import loss
from carvana_ray.unet import UNet


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 32, 48, generator=rng), torch.rand(n, 1, 32, 48, generator=rng)


def test_the_loss_is_its_formula_in_float64() -> None:
    logits, target = (value.double() for value in batch())
    p = 1 / (1 + torch.exp(-logits))
    cross_entropy = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    dice = (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    expected = cross_entropy / 2 - dice + 1
    assert loss.bce_dice(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_perfect_mask_costs_nothing_and_an_empty_one_neither() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 2:5] = 1
    sure = (target * 2 - 1) * 50
    assert loss.bce_dice(sure, target).item() == pytest.approx(0, abs=1e-6)
    empty = torch.zeros(2, 1, 8, 8)
    assert loss.bce_dice(empty - 50, empty).item() == pytest.approx(0, abs=1e-6)


def test_bf16_logits_are_summed_in_float32() -> None:
    logits, target = batch()
    rounded = logits.bfloat16()
    assert loss.batch_sums(rounded, target).dtype == torch.float32
    torch.testing.assert_close(
        loss.bce_dice(rounded, target), loss.bce_dice(rounded.float(), target)
    )


def gradients(model: torch.nn.Module, count: int, rank: int) -> tuple[float, list[Tensor]]:
    """Return the loss and the gradients of this worker's part of the batch, as in a step."""

    def add_up(value: Tensor) -> Tensor:
        total = value.clone()
        if count > 1:
            torch.distributed.all_reduce(total)
        return total

    image, target = batch()
    sums = loss.batch_sums(model(image[rank::count]), target[rank::count])
    value = loss.from_sums(loss.over_workers(sums, add_up))
    (value * count).backward()
    return value.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(base=4, depth=3, norm="none")


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    value, grads = gradients(DistributedDataParallel(network()), 2, rank)
    torch.save({"loss": value, "grads": grads}, os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_two_workers_with_eight_have_the_gradients_of_one_with_sixteen(tmp_path: Path) -> None:
    expected_loss, expected = gradients(network(), 1, 0)
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    scale = max(grad.abs().max().item() for grad in expected)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["loss"] == pytest.approx(expected_loss, rel=1e-6)
        for own, whole in zip(found["grads"], expected, strict=True):
            torch.testing.assert_close(own, whole, rtol=1e-4, atol=1e-4 * scale)


def test_a_mean_of_the_workers_losses_would_be_another_loss() -> None:
    """The test above can fail: Dice of parts is not Dice of the whole."""
    logits, target = batch()
    target[::2] = 0
    whole = loss.bce_dice(logits, target)
    parts = [loss.bce_dice(logits[r::2], target[r::2]) for r in range(2)]
    assert abs(torch.stack(parts).mean() - whole) > 1e-3
