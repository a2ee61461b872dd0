"""A batch as a network that folds sees it: moved, standardized, padded and folded, on its device.

`fold_batch` gives what `state.prepare_batch` and the first lines of `UNet.forward` give, in half
precision and channels last. One H200, eight images of 1280 x 1918 that are moved and standardized:
2.2 ms by torch, 0.14 ms by `fused_input_triton`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from carvana_ray import images
from carvana_ray.images.warp import apply_affine
from carvana_ray.inference.mask_kernels import load_triton

TRITON = "carvana_ray.training.fused_input_triton"
MIN_CHANNELS = 8  # cuDNN is slow with fewer input channels than tensor cores take at a time


@dataclass(frozen=True)
class FoldedBatch:
    """Images and soft masks whose blocks of f x f pixels are the channels of one cell.

    Channel ``dy * f + dx`` is pixel (dy, dx) of a block, as in `torch.pixel_unshuffle`. Cells
    beyond the image repeat its last row and column.

    Attributes:
        x: [B, P, h, w], standardized images, channels last; P is at least `MIN_CHANNELS`, and the
            channels beyond f^2 are 0. float16 on a GPU, float32 on a CPU.
        target: uint8 [B, f^2, h, w], soft masks 0..255, channels last.
        weight: float32 [B], 1 for an image, 0 for padding of the batch.
        size: height and width of the images in pixels, without the repeated ones.
    """

    x: Tensor
    target: Tensor
    weight: Tensor
    size: tuple[int, int]


@torch.no_grad()
def fold_batch(batch: dict[str, Tensor], fold: int, depth: int, training: bool) -> FoldedBatch:
    """Return a batch as a `UNet` with this `fold` and `depth` takes it.

    A moved soft mask is rounded to whole levels, a half downwards. This is the precision of the
    masks that do not move. It changes no pixel's side of a half and no level in the middle of car
    or background; at an edge its error has a mean of 0 and is at most 1/510 of the range.

    Args:
        batch: as `state.prepare_batch` takes it, with ``soft_mask`` uint8.
        training: apply the affine transform.
    """
    image, soft_mask, affine = batch["image"], batch["soft_mask"], batch.get("affine")
    size = (image.shape[-2], image.shape[-1])
    block = fold * 2 ** (depth - 1)
    cells = tuple(-(-length // block) * block // fold for length in size)
    matrix, raw = affine if training else None, affine is not None
    if kernels := load_triton(image.device, TRITON):
        x, target = kernels.fold_images(image, soft_mask, matrix, raw, fold, cells)
        return FoldedBatch(x, target, batch["weight"], size)
    if matrix is not None:
        image, soft_mask = apply_affine(image, soft_mask, matrix)
        soft_mask = (soft_mask - 0.5).ceil()
    if raw:
        image = images.standardize(image)
    x, target = (_fold(values, fold, cells) for values in (image, soft_mask))
    x = F.pad(x, (0, 0, 0, 0, 0, max(MIN_CHANNELS - fold**2, 0)))
    x = x.to(torch.float16 if image.is_cuda else torch.float32)
    x = x.contiguous(memory_format=torch.channels_last)
    return FoldedBatch(x, target.to(torch.uint8), batch["weight"], size)


def _fold(values: Tensor, fold: int, cells: tuple[int, ...]) -> Tensor:
    """Return [B, H, W] folded, float32 [B, f^2, h, w], after the last row and column repeated."""
    down, right = (fold * n - m for n, m in zip(cells, values.shape[-2:], strict=True))
    padded = F.pad(values[:, None].float(), (0, right, 0, down), mode="replicate")
    folded = F.pixel_unshuffle(padded, fold)
    return folded.contiguous(memory_format=torch.channels_last)
