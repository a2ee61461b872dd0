"""Metrics as sums over images: add them up over batches and workers, then divide once."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

METRICS = ("images", "dice", "accuracy")  # the order of `metric_sums`


def dice(mask: NDArray, truth: NDArray) -> float:
    """Return Kaggle's score of one image, ``2 |A and B| / (|A| + |B|)``; 1 if both are empty.

    Args:
        mask, truth: bool arrays of the same shape.
    """
    total = np.count_nonzero(mask) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(mask & truth) / total if total else 1.0


def metric_sums(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the sums of `METRICS` over a batch, at the network's resolution.

    Both masks are true above a half. Dice is that of each image, accuracy its fraction of pixels
    that agree.

    Args:
        logits: float [B, 1, h, w]; 0 is a probability of a half.
        target: float [B, 1, h, w], soft masks 0..1.
        weight: float [B], 1 for an image, 0 for padding of the batch.

    Returns:
        float64 [3].
    """
    mask, truth = logits > 0, target > 0.5
    axes = (1, 2, 3)
    both = (mask & truth).sum(axes)
    total = mask.sum(axes) + truth.sum(axes)
    score = torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)
    agree = (mask == truth).float().mean(axes)
    rows = torch.stack([torch.ones_like(score), score, agree])
    return (rows.double() * weight).sum(1)
