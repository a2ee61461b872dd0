"""The loss ``BCE / 2 - Dice + 1`` over a whole batch, also if several workers share the batch.

Dice is a ratio of sums over the batch, so the mean of the workers' losses is a different loss. The
workers therefore add up four sums, and each backpropagates through its own part only. The sum of
their gradients is the gradient of the loss of the whole batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1.0  # in Dice, above and below, as in the 2017 project: two empty masks score 1


def loss_sums(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sums that the loss of a batch is computed from.

    Args:
        logits: float [B, 1, h, w], converted to float32 (a sum over 2.5 million pixels is too
            large for bfloat16).
        target: float [B, 1, h, w], soft masks 0..1.
        weight: float [B], 1 for an image, 0 for padding of the batch; None for all 1. Padding may
            hold NaN or infinity.

    Returns:
        float32 [4]: the sums of cross entropy, of p * t and of p + t, and the number of pixels.
    """
    logits, target = logits.float(), target.float()
    if weight is not None:  # `where`, since 0 * inf is NaN, in the sums and in the gradient
        real = (weight > 0)[:, None, None, None]
        logits, target = logits.where(real, 0), target.where(real, 0)
    probability = torch.sigmoid(logits)
    axes = (1, 2, 3)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    per_image = torch.stack(
        [
            cross_entropy.sum(axes),
            (probability * target).sum(axes),
            probability.sum(axes) + target.sum(axes),
            torch.full_like(logits[:, 0, 0, 0], logits[0].numel()),
        ]
    )
    return per_image.sum(1) if weight is None else per_image.where(weight > 0, 0).sum(1)


def soft_dice(sums: Tensor) -> Tensor:
    """Return ``(2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`` of `loss_sums`: a scalar, 0..1."""
    return (2 * sums[1] + SMOOTH) / (sums[2] + SMOOTH)


def loss_from_sums(sums: Tensor) -> Tensor:
    """Return the loss of `loss_sums`: a scalar, 0 or more."""
    return sums[0] / sums[3] / 2 - soft_dice(sums) + 1


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss of a batch in one process: a scalar. Shapes as in `loss_sums`."""
    return loss_from_sums(loss_sums(logits, target))


def reduce_sums(sums: Tensor, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sums of all workers, with the gradient of this worker's part only.

    Args:
        sums: `loss_sums` of this worker's part of the batch.
        all_reduce: returns the sum over all workers of a tensor without gradient.
    """
    own = sums.detach()
    return sums + (all_reduce(own) - own)
