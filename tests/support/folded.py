"""Batches and logits of a network that folds, pixel by pixel."""

import torch
from torch import Tensor

from carvana_ray.training.fused_input import FoldedBatch

FLIPPED_LARGER = [[-1.08, 0, 0.05], [0, 1.08, -0.03]]
SMALL_IN_A_CORNER = [[1.4918, 0, 0.24], [0, 1.4918, -0.24]]  # e^0.4, a shift of 0.12: far outside
CUT_OUT = [[0.6703, 0, -0.24], [0, 0.6703, 0.24]]
TURNED = [[0.9, 0.2, 0.0], [-0.3, 1.1, 0.1]]
MATRICES = [FLIPPED_LARGER, SMALL_IN_A_CORNER, CUT_OUT, TURNED]


def moved_batch(height: int, width: int) -> dict[str, Tensor]:
    """Return four uint8 images, masks of disks with soft edges, and an affine matrix for each."""
    rng = torch.Generator().manual_seed(height)
    shape = (len(MATRICES), height, width)
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    soft = (0.6 - x * x - y * y) * torch.tensor([2.0, 4, 8, 16])[:, None, None] + 0.5
    return {
        "image": torch.randint(0, 256, shape, generator=rng).to(torch.uint8),
        "soft_mask": (soft.clamp(0, 1) * 255).to(torch.uint8),
        "weight": torch.tensor([1.0, 1, 0, 1]),
        "affine": torch.tensor(MATRICES),
    }


def disks(height: int, width: int) -> Tensor:
    """Return the soft masks of `moved_batch`, float32 [4, 1, H, W], 0..1."""
    return moved_batch(height, width)["soft_mask"][:, None] / 255


def unfold(folded: Tensor, fold: int, height: int, width: int) -> Tensor:
    """Return pixels [B, height, width] of cells [B, P, h, w], one by one."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    return folded[:, y % fold * fold + x % fold, y // fold, x // fold]


def folded_case(
    fold: int, channels: int, dtype: torch.dtype, size: tuple[int, int] = (13, 22)
) -> tuple[Tensor, FoldedBatch]:
    """Return logits [5, channels, h, w], channels last, and their soft masks.

    Images 1 and 2 are all car and all ground, and image 2 is predicted so. Image 3 is padding of
    the batch with NaN and infinity. Repeated pixels and spare channels hold values that would show.
    """
    rng = torch.Generator().manual_seed(fold)
    h, w = (-(-length // (2 * fold)) * 2 for length in size)
    logits = torch.randn(5, channels, h, w, generator=rng) * 6
    target = torch.randint(0, 256, (5, fold**2, h, w), generator=rng).to(torch.uint8)
    target[1], target[2], logits[2] = 255, 0, -9
    logits[3, 0, 1, 1], logits[3, 0, 2, 2] = torch.nan, torch.inf
    logits[4, : fold**2, :2] = 30 * (target[4, :, :2] / 127.5 - 1)  # sure
    weight = torch.tensor([1.0, 1, 1, 0, 1])
    logits, target = (
        one.contiguous(memory_format=torch.channels_last) for one in (logits.to(dtype), target)
    )
    return logits, FoldedBatch(target, target, weight, size)


def disk_case(fold: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, FoldedBatch]:
    """Return `folded_case` of larger images, where image 0, 3 and 4 show a disk."""
    height, width = size = 21, 34
    logits, folded = folded_case(fold, channels, dtype, size)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    shown = disks(height, width)[:3, 0] * 255
    for image, disk in zip((0, 3, 4), shown.to(torch.uint8), strict=True):
        folded.target[image, y % fold * fold + x % fold, y // fold, x // fold] = disk
    return logits, folded
