"""The loss against its formula, and with several workers against one with the whole batch."""

import numpy as np
import pytest
import torch
from support.folded import disks
from torch import Tensor

from carvana_ray.unet import loss
from carvana_ray.unet.network import UNet


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


def test_the_loss_of_a_perfect_mask_is_zero_also_of_an_empty_one() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 2:5] = 1
    sure = (target * 2 - 1) * 50
    assert loss.bce_dice(sure, target).item() == pytest.approx(0, abs=1e-6)
    empty = torch.zeros(2, 1, 8, 8)
    assert loss.bce_dice(empty - 50, empty).item() == pytest.approx(0, abs=1e-6)


def test_bf16_logits_are_summed_in_float32() -> None:
    logits, target = batch()
    rounded = logits.bfloat16()
    assert loss.loss_sums(rounded, target).dtype == torch.float32
    torch.testing.assert_close(
        loss.bce_dice(rounded, target), loss.bce_dice(rounded.float(), target)
    )


@pytest.mark.parametrize("fold", [1, 2, 3, 4])
def test_edges_are_where_the_cells_around_hold_car_and_background(fold: int) -> None:
    """Each pixel's cells looked at one by one, in images whose sides no block divides."""
    target = disks(29, 43)
    target[1, 0, :5, :5] = 1  # a boundary at the border
    car = target[:, 0].numpy() > 0.5
    expected = np.ones(car.shape, np.float32)
    for image, y, x in np.ndindex(car.shape):
        top, left = (max(at // fold - 1, 0) * fold for at in (y, x))
        seen = car[image, top : (y // fold + 2) * fold, left : (x // fold + 2) * fold]
        expected[image, y, x] = 1 if seen.all() or not seen.any() else 5
    found = loss.edge_weights(target, fold, 5)
    assert found is not None
    assert found.dtype == torch.float32
    assert np.array_equal(found[:, 0].numpy(), expected)
    assert 0.05 < (expected > 1).mean() < 0.95


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_the_band_has_one_to_two_cells_to_each_side_of_a_boundary(fold: int) -> None:
    widths = set()
    for first in range(16, 16 + fold):
        target = torch.zeros(1, 1, 8, 40)
        target[..., first:] = 1
        near = loss.edge_weights(target, fold, 5)[0, 0, 0] == 5
        widths |= {near[:first].sum().item(), near[first:].sum().item()}
    assert widths == set(range(fold, 2 * fold))


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_a_mirrored_mask_has_mirrored_edges(fold: int) -> None:
    """Where blocks divide the image, as otherwise they begin elsewhere in the mirror image."""
    target = disks(32, 48)
    mirrored = loss.edge_weights(target.flip(-1), fold, 5)
    assert torch.equal(mirrored, loss.edge_weights(target, fold, 5).flip(-1))


def test_edges_are_those_of_the_mask_that_metrics_count() -> None:
    levels = torch.tensor([0.0, 127, 128, 255]) / 255
    edges = loss.edge_weights(levels.repeat_interleave(4)[None, None, None], 1, 5)
    assert edges.flatten().tolist() == [1] * 7 + [5, 5] + [1] * 7


def test_workers_sums_with_edges_add_up_to_those_of_the_whole_batch() -> None:
    target = disks(30, 40)
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(4))
    parts = [
        loss.loss_sums(one, own, None, loss.edge_weights(own, 4, 5))
        for one, own in zip(logits.split([3, 1]), target.split([3, 1]), strict=True)
    ]
    whole = loss.loss_sums(logits, target, None, loss.edge_weights(target, 4, 5))
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)


def test_pixel_weights_multiply_cross_entropy_alone() -> None:
    logits, target = (value.double() for value in batch())
    times = torch.rand(logits.shape, generator=torch.Generator().manual_seed(2)) * 9
    logits.requires_grad_()
    sums = loss.loss_sums(logits, target, None, times)
    p = 1 / (1 + torch.exp(-logits))
    entropy = -(times * (target * p.log() + (1 - target) * (1 - p).log())).sum()
    assert sums[0].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert torch.equal(sums[1:], loss.loss_sums(logits, target)[1:])
    (gradient,) = torch.autograd.grad(sums[0], logits)
    torch.testing.assert_close(gradient, (times * (p - target)).detach(), rtol=1e-4, atol=1e-5)


def test_an_edge_weight_of_one_changes_no_bit() -> None:
    logits, target = batch()
    assert loss.edge_weights(target, 4, 1.0) is None
    plain = loss.loss_sums(logits, target)
    assert torch.equal(loss.loss_sums(logits, target, None, torch.ones_like(target)), plain)


def gradients(model: torch.nn.Module) -> tuple[float, list[Tensor]]:
    """Return the loss of the whole batch and its gradients."""
    image, target = batch()
    value = loss.bce_dice(model(image), target)
    value.backward()
    return value.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(base=4, depth=3, norm="none")


def test_a_mean_of_the_workers_losses_is_another_loss() -> None:
    """The test below can fail: Dice of parts is not Dice of the whole."""
    logits, target = batch()
    target[::2] = 0
    whole = loss.bce_dice(logits, target)
    parts = [loss.bce_dice(logits[r::2], target[r::2]) for r in range(2)]
    assert abs(torch.stack(parts).mean() - whole) > 1e-3


ODD = [float("nan"), float("inf"), -float("inf"), 1e30, 0.0]


def padded(values: Tensor, more: int, value: float) -> Tensor:
    """Return images followed by `more` images of one value."""
    return torch.cat([values, torch.full((more, *values.shape[1:]), value)])


def weights(real: int, padding: int) -> Tensor:
    return torch.tensor([1.0] * real + [0.0] * padding)


@pytest.mark.parametrize("odd", ODD)
def test_padding_never_counts(odd: float) -> None:
    logits, target = batch(5)
    expected = loss.loss_sums(logits, target)
    assert expected[3] == logits.numel()
    assert torch.equal(expected, loss.loss_sums(logits, target, torch.ones(5)))
    for other in (odd, 0.5):
        found = loss.loss_sums(padded(logits, 3, odd), padded(target, 3, other), weights(5, 3))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("odd", ODD)
def test_padding_never_counts_at_its_edges(odd: float) -> None:
    logits, target = batch(5)
    both = padded(target, 3, odd)
    both[6, 0, :9] = 1.0
    found = loss.loss_sums(
        padded(logits, 3, odd), both, weights(5, 3), loss.edge_weights(both, 4, 5)
    )
    expected = loss.loss_sums(logits, target, None, loss.edge_weights(target, 4, 5))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("odd", ODD)
def test_padding_has_a_gradient_of_zero_and_changes_no_other(odd: float) -> None:
    logits, target = batch(5)
    alone = logits.clone().requires_grad_()
    loss.loss_from_sums(loss.loss_sums(alone, target)).backward()
    both = padded(logits, 3, odd).requires_grad_()
    loss.loss_from_sums(loss.loss_sums(both, padded(target, 3, odd), weights(5, 3))).backward()
    assert alone.grad is not None
    assert both.grad is not None
    assert (both.grad[5:] == 0).all()
    torch.testing.assert_close(both.grad[:5], alone.grad)
    assert alone.grad.abs().max() > 0


def test_a_batch_of_padding_adds_nothing() -> None:
    """The last validation batch of a worker may be only padding."""
    logits, target = batch(3)
    assert loss.loss_sums(logits, target, torch.zeros(3)).tolist() == [0, 0, 0, 0]


def test_a_nan_in_a_real_image_is_not_hidden() -> None:
    logits, target = batch(5)
    logits[2, 0, 3, 4] = float("nan")
    assert loss.loss_from_sums(loss.loss_sums(logits, target, torch.ones(5))).isnan()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 16])
def test_workers_with_padding_have_the_gradients_of_one_with_the_whole_batch(count: int) -> None:
    """Three workers get 6, 5 and 5 of 16 images, and two images of padding."""
    expected_loss, expected = gradients(network())
    image, target = batch()
    per_worker = -(-16 // count)
    model = network()
    sums = []
    for rank in range(count):
        own = torch.arange(16)[rank::count]
        padding = per_worker - len(own)
        own = torch.cat([own, own[-1:].repeat(padding)])
        weight = weights(per_worker - padding, padding)
        sums.append(loss.loss_sums(model(image[own]), target[own], weight))
    total = torch.stack([part.detach() for part in sums]).sum(0)
    for part in sums:  # as each worker does; the gradients add up in the network
        value = loss.loss_from_sums(loss.reduce_sums(part, lambda own: total.clone()))
        assert value.item() == pytest.approx(expected_loss, rel=1e-6)
        value.backward()
    scale = max(grad.abs().max().item() for grad in expected)
    for parameter, whole in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, whole, rtol=1e-4, atol=1e-4 * scale)
