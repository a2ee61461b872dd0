"""How good masks are, as sums and counts: added up over batches and workers, divided once."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

METRICS = ("images", "dice", "accuracy")


def dice(mask: NDArray, truth: NDArray) -> float:
    """Return Kaggle's score of one picture, ``2 |A and B| / (|A| + |B|)``; 1 where both are empty.

    Args:
        mask, truth: bool, of one shape.
    """
    total = np.count_nonzero(mask) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(mask & truth) / total if total else 1.0


def metric_sums(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return float64 [3], the sums over pictures of `COUNTED`, at the network's resolution.

    Both masks are thresholded at a half: the accuracy is the share of pixels that agree, Dice is
    that of each picture.

    Args:
        logits: [B, 1, h, w].
        target: share of car 0..1, [B, 1, h, w].
        weight: float [B], 1 for a picture, 0 for one that only fills up a batch.
    """
    mask, truth = logits > 0, target > 0.5
    axes = (1, 2, 3)
    both = (mask & truth).sum(axes)
    total = mask.sum(axes) + truth.sum(axes)
    score = torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)
    agree = (mask == truth).float().mean(axes)
    rows = torch.stack([torch.ones_like(score), score, agree])
    return (rows.double() * weight).sum(1)
