"""The sums of folded logits are those of the plain image."""

import pytest
import torch
from support.folded import disk_case, folded_case, unfold

from carvana_ray.training.fused_loss import folded_sums
from carvana_ray.unet import loss, metrics


@pytest.mark.parametrize(("fold", "channels"), [(1, 1), (1, 8), (2, 8), (3, 10), (4, 16)])
def test_only_pixels_of_the_image_count(fold: int, channels: int) -> None:
    logits, folded = folded_case(fold, channels, torch.float32)
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    sums, counts = folded_sums(one, folded)
    plain = unfold(other, fold, *folded.size)[:, None]
    target = unfold(folded.target, fold, *folded.size)[:, None] / 255
    expected = loss.loss_sums(plain, target, folded.weight)
    torch.testing.assert_close(sums, expected)
    assert torch.equal(counts, metrics.metric_sums(plain.detach(), target, folded.weight))
    loss.loss_from_sums(sums).backward()
    loss.loss_from_sums(expected).backward()
    assert one.grad is not None
    torch.testing.assert_close(one.grad, other.grad)
    assert (one.grad[:, fold**2 :] == 0).all()
    assert (one.grad[3] == 0).all()
    assert one.grad.abs().max() > 0


@pytest.mark.parametrize(("fold", "channels"), [(1, 8), (2, 8), (3, 10), (4, 16)])
def test_edges_are_those_of_the_plain_image(fold: int, channels: int) -> None:
    logits, folded = disk_case(fold, channels, torch.float32)
    sums, _ = folded_sums(logits, folded, 5.0)
    plain = unfold(logits, fold, *folded.size)[:, None]
    target = unfold(folded.target, fold, *folded.size)[:, None] / 255
    edges = loss.edge_weights(target, fold, 5.0)
    expected = loss.loss_sums(plain, target, folded.weight, edges)
    torch.testing.assert_close(sums, expected)
    assert expected[0] > 1.05 * folded_sums(logits, folded)[0][0]
