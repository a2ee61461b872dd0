"""The loss: ``BCE / 2 - Dice + 1`` over the whole batch, also where workers share the batch.

Dice is no mean over pictures, so a mean of the workers' losses would be another loss. It is a
function of four sums over the batch; workers add up the sums, and each lets the gradient through
its own part alone. What the workers then add up is the gradient of the loss of the whole batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1.0  # added above and below in Dice, as in 2017: an empty batch of empty masks scores 1


def loss_sums(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return float32 [4]: sums of cross entropy, of p * t, of p + t, and the number of pixels.

    Args:
        logits: float [B, 1, h, w]; taken to float32 first (a sum over 2.5 million pixels has no
            place in bf16).
        target: float [B, 1, h, w], share of car 0..1.
        weight: float [B], 1 for a picture, 0 for one that only fills up a batch; None: all 1.
    """
    logits, target = logits.float(), target.float()
    if weight is not None:  # not times it: a filler's infinity must reach no sum and no gradient
        real = (weight > 0)[:, None, None, None]
        logits, target = logits.where(real, 0), target.where(real, 0)
    share = torch.sigmoid(logits)
    axes = (1, 2, 3)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    pictures = torch.stack(
        [
            cross_entropy.sum(axes),
            (share * target).sum(axes),
            share.sum(axes) + target.sum(axes),
            torch.full_like(logits[:, 0, 0, 0], logits[0].numel()),
        ]
    )
    return pictures.sum(1) if weight is None else pictures.where(weight > 0, 0).sum(1)


def soft_dice(sums: Tensor) -> Tensor:
    """Return ``(2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`` of `batch_sums`: a scalar, 0..1."""
    return (2 * sums[1] + SMOOTH) / (sums[2] + SMOOTH)


def loss_from_sums(sums: Tensor) -> Tensor:
    """Return the loss of `batch_sums`: a scalar, 0 or more."""
    return sums[0] / sums[3] / 2 - soft_dice(sums) + 1


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss of one batch in one process; shapes as in `batch_sums`."""
    return loss_from_sums(loss_sums(logits, target))


def reduce_sums(sums: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sums of all workers, with the gradient of this worker's part alone.

    Args:
        sums: `batch_sums` of this worker's part of the batch.
        add_up: returns the sum over workers of a tensor without gradient.
    """
    own = sums.detach()
    return sums + (add_up(own) - own)
