"""The loss ``BCE / 2 - Dice + 1`` over a whole batch, also if several workers share the batch.

Dice is a ratio of sums over the batch, so the mean of the workers' losses is a different loss. The
workers therefore add up four sums, and each backpropagates through its own part only. The sum of
their gradients is the gradient of the loss of the whole batch.

In training a recipe may let the cross entropy of pixels near a mask's boundary count several times,
see `edge_weights`. Nearly all wrong pixels are there.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1.0  # in Dice, above and below, as in the 2017 project: two empty masks score 1
EDGE_CELLS = 1  # cells around a cell in which `edge_weights` looks for a boundary


def edge_weights(target: Tensor, fold: int, edge_weight: float) -> Tensor | None:
    """Return how many times the cross entropy of each pixel counts; None if all count once.

    A pixel near a boundary counts `edge_weight` times: the 3 x 3 cells around its own hold both car
    and background, as `metrics.metric_sums` tells them apart. A cell is a block of fold x fold
    pixels, counted from the top left. Cells end at the image's border. So the band has f to 2f - 1
    pixels to each side of a boundary. The weights of Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597, equation 2, fall with the distance from a boundary. These need
    no distance, and one value for each cell of a network that folds.

    Args:
        target: float [B, 1, h, w], soft masks 0..1.
        fold: that of the network.

    Returns:
        float32 [B, 1, h, w].
    """
    if edge_weight == 1:
        return None
    car = target > 0.5
    held = F.max_pool2d(torch.cat([car, ~car], 1).float(), fold, ceil_mode=True)  # [B, 2, h, w]
    around = F.max_pool2d(held, 2 * EDGE_CELLS + 1, 1, EDGE_CELLS)
    cells = torch.where(around.amin(1, keepdim=True) > 0, edge_weight, 1.0)
    pixels = cells.repeat_interleave(fold, -2).repeat_interleave(fold, -1)
    return pixels[..., : target.shape[-2], : target.shape[-1]]


def loss_sums(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Return the sums that the loss of a batch is computed from.

    Args:
        logits: float [B, 1, h, w], converted to float32 (a sum over 2.5 million pixels is too
            large for bfloat16).
        target: float [B, 1, h, w], soft masks 0..1.
        weight: float [B], 1 for an image, 0 for padding of the batch; None for all 1. Padding may
            hold NaN or infinity.
        pixel_weight: float [B, 1, h, w], how many times the cross entropy of each pixel counts, see
            `edge_weights`; None for all 1. All other sums count each pixel once.

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
    if pixel_weight is not None:
        cross_entropy = cross_entropy * pixel_weight
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
