"""The passes of `kernels`, each as one kernel of a GPU, where torch's own operations are five.

Triton comes with torch's wheels for CUDA and with nothing else, and it calls a C compiler: whoever
imports this has to be ready for an ImportError, and more. Both kernels compute with integers, so
they agree with `kernels` to the bit, which is the oracle of their tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from carvana_ray import images

COLUMNS = 1024  # pixels of a row that one program makes of a mask
BLOCKS = 128  # of a row that one program makes of a picture


def run_boundaries(share: Tensor, height: int, width: int) -> Tensor:
    """Return `kernels.edges`: bool [B, H * W + 1] of uint8 [B, h, w], on a GPU."""
    count, h, w = share.shape
    times = images.infer_downscale(height, width, h, w)
    found = torch.empty(count, height * width + 1, dtype=torch.bool, device=share.device)
    grid = (height, triton.cdiv(width, COLUMNS), count)
    with torch.cuda.device(share.device):
        _edges[grid](share.contiguous(), found, height, width, h, w, times, COLUMNS)
    return found


def block_means(rgb: Tensor, downscale: int) -> Tensor:
    """Return `kernels.mean_of_blocks`: uint8 [B, h, w] of uint8 [B, 3, H, W], on a GPU."""
    count, _, height, width = rgb.shape
    h, w = images.grid_size(height, width, downscale)
    gray = torch.empty(count, h, w, dtype=torch.uint8, device=rgb.device)
    grid = (h, triton.cdiv(w, BLOCKS), count)
    with torch.cuda.device(rgb.device):
        _mean_of_blocks[grid](rgb.contiguous(), gray, height, width, h, w, downscale, BLOCKS)
    return gray


def self_test(device: torch.device) -> None:
    """Run both once: what they cannot do here (no C compiler, say) they cannot do later either."""
    blank = torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=device)
    run_boundaries(block_means(blank, 4), 8, 8)


@triton.jit
def _in_car(share, y, x, h, w, T: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether pixels (y, x) are car: bilinear between block centres, above a half.

    Block centres are T pixels apart, so weights are whole numbers of 1 / (2 T), and beyond the
    outermost centres the outermost value holds: `images.enlarge` in integers.
    """
    down, right = 2 * y + 1 + T, 2 * x + 1 + T  # in units of 1 / (2 T), from a block before
    top, left = down // (2 * T) - 1, right // (2 * T) - 1
    below, beside = down % (2 * T), right % (2 * T)
    first, second = tl.maximum(top, 0) * w, tl.minimum(top + 1, h - 1) * w
    near, far = tl.maximum(left, 0), tl.minimum(left + 1, w - 1)
    upper = tl.load(share + first + near).to(tl.int32) * (2 * T - beside)
    upper += tl.load(share + first + far).to(tl.int32) * beside
    lower = tl.load(share + second + near).to(tl.int32) * (2 * T - beside)
    lower += tl.load(share + second + far).to(tl.int32) * beside
    return 2 * (upper * (2 * T - below) + lower * below) > 255 * 4 * T * T


@triton.jit
def _edges(share, found, height, width, h, w, T: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    y = tl.program_id(0)
    x = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    picture = tl.program_id(2).to(tl.int64)
    share += picture * h * w
    found += picture * (height * width + 1)
    inside = x < width
    x = tl.minimum(x, width - 1)
    here = _in_car(share, y + 0 * x, x, h, w, T)
    # The pixel before the first of a row is the last of the row above.
    row, column = tl.where(x > 0, y, y - 1), tl.where(x > 0, x - 1, width - 1)
    before = _in_car(share, tl.maximum(row, 0), column, h, w, T) & (row >= 0)
    tl.store(found + y * width + x, here != before, mask=inside)
    last = inside & (x == width - 1) & (y == height - 1)
    tl.store(found + height * width + 0 * x, here, mask=last)


@triton.jit
def _mean_of_blocks(rgb, gray, height, width, h, w, D: tl.constexpr, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]
    y = tl.program_id(0)
    first = tl.program_id(1) * BLOCKS
    picture = tl.program_id(2).to(tl.int64)
    columns = first * D + tl.arange(0, BLOCKS * D)
    levels = tl.zeros([BLOCKS * D], tl.int32)
    for channel in range(3):
        for down in range(D):
            row = y * D + down
            at = rgb + ((picture * 3 + channel) * height + row) * width
            there = (columns < width) & (row < height)
            levels += tl.load(at + columns, mask=there, other=0).to(tl.int32)
    total = tl.sum(tl.reshape(levels, (BLOCKS, D)), axis=1)
    x = first + tl.arange(0, BLOCKS)
    values = 3 * tl.minimum(D, height - y * D) * tl.minimum(D, width - x * D)
    values = tl.maximum(values, 1)  # of blocks beyond the border, which are not stored
    mean = (2 * total + values) // (2 * values)
    tl.store(gray + (picture * h + y) * w + x, mean.to(tl.uint8), mask=x < w)
