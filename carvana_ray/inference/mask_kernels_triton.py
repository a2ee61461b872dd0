"""The passes of `mask_kernels`, each as one GPU kernel in the place of five torch operations.

Both kernels compute with integers and agree with `mask_kernels` to the bit. Triton comes only with
torch's CUDA wheels and calls a C compiler, so importing this module may raise any error.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from carvana_ray import images

COLUMNS = 1024  # pixels of a mask's row that one program computes
BLOCKS = 128  # blocks of an image's row that one program computes


def run_boundaries(soft_masks: Tensor, height: int, width: int) -> Tensor:
    """Return `mask_kernels.run_boundaries`, on a GPU."""
    count, h, w = soft_masks.shape
    downscale = images.infer_downscale(height, width, h, w)
    boundaries = torch.empty(count, height * width + 1, dtype=torch.bool, device=soft_masks.device)
    grid = (height, triton.cdiv(width, COLUMNS), count)
    with torch.cuda.device_of(soft_masks):
        _run_boundaries_kernel[grid](
            soft_masks.contiguous(), boundaries, height, width, h, w, downscale, COLUMNS
        )
    return boundaries


def block_means(rgb: Tensor, downscale: int) -> Tensor:
    """Return `mask_kernels.block_means`, on a GPU."""
    count, _, height, width = rgb.shape
    h, w = images.grid_size(height, width, downscale)
    gray = torch.empty(count, h, w, dtype=torch.uint8, device=rgb.device)
    grid = (h, triton.cdiv(w, BLOCKS), count)
    with torch.cuda.device_of(rgb):
        _block_means_kernel[grid](rgb.contiguous(), gray, height, width, h, w, downscale, BLOCKS)
    return gray


def self_test(device: torch.device) -> None:
    """Run both kernels once, so that an error, such as no C compiler, comes early."""
    blank = torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=device)
    run_boundaries(block_means(blank, 4), 8, 8)


@triton.jit
def _is_foreground(soft_mask, y, x, h, w, T: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return whether pixels (y, x) are foreground: above a half, bilinear between block centers.

    This is `images.enlarge` in integers. Block centers are T pixels apart, so weights are multiples
    of 1 / (2 T). Beyond the outermost centers the outermost value holds.
    """
    down, right = 2 * y + 1 + T, 2 * x + 1 + T  # in units of 1 / (2 T), from the block before
    top, left = down // (2 * T) - 1, right // (2 * T) - 1
    weight_second, weight_far = down % (2 * T), right % (2 * T)
    first, second = tl.maximum(top, 0) * w, tl.minimum(top + 1, h - 1) * w
    near, far = tl.maximum(left, 0), tl.minimum(left + 1, w - 1)
    upper = tl.load(soft_mask + first + near).to(tl.int32) * (2 * T - weight_far)
    upper += tl.load(soft_mask + first + far).to(tl.int32) * weight_far
    lower = tl.load(soft_mask + second + near).to(tl.int32) * (2 * T - weight_far)
    lower += tl.load(soft_mask + second + far).to(tl.int32) * weight_far
    return 2 * (upper * (2 * T - weight_second) + lower * weight_second) > 255 * 4 * T * T


@triton.jit
def _run_boundaries_kernel(  # type: ignore[no-untyped-def]
    soft_mask, boundaries, height, width, h, w, T: tl.constexpr, COLUMNS: tl.constexpr
):
    y = tl.program_id(0)
    x = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    image = tl.program_id(2).to(tl.int64)
    soft_mask += image * h * w
    boundaries += image * (height * width + 1)
    inside = x < width
    x = tl.minimum(x, width - 1)
    current = _is_foreground(soft_mask, y + 0 * x, x, h, w, T)
    # The pixel before the first one of a row is the last one of the row above.
    row, column = tl.where(x > 0, y, y - 1), tl.where(x > 0, x - 1, width - 1)
    before = _is_foreground(soft_mask, tl.maximum(row, 0), column, h, w, T) & (row >= 0)
    tl.store(boundaries + y * width + x, current != before, mask=inside)
    last = inside & (x == width - 1) & (y == height - 1)
    tl.store(boundaries + height * width + 0 * x, current, mask=last)


@triton.jit
def _block_means_kernel(rgb, gray, height, width, h, w, D: tl.constexpr, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]
    y = tl.program_id(0)
    first = tl.program_id(1) * BLOCKS
    image = tl.program_id(2).to(tl.int64)
    columns = first * D + tl.arange(0, BLOCKS * D)
    levels = tl.zeros([BLOCKS * D], tl.int32)
    for channel in range(3):
        for down in range(D):
            row = y * D + down
            at = rgb + ((image * 3 + channel) * height + row) * width
            inside = (columns < width) & (row < height)
            levels += tl.load(at + columns, mask=inside, other=0).to(tl.int32)
    total = tl.sum(tl.reshape(levels, (BLOCKS, D)), axis=1)
    x = first + tl.arange(0, BLOCKS)
    values = 3 * tl.minimum(D, height - y * D) * tl.minimum(D, width - x * D)
    values = tl.maximum(values, 1)  # blocks beyond the border, which are not stored
    mean = (2 * total + values) // (2 * values)
    tl.store(gray + (image * h + y) * w + x, mean.to(tl.uint8), mask=x < w)
