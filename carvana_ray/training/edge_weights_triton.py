"""`unet.loss.edge_weights` of folded soft masks on a GPU: a value for each cell.

One pass over the soft masks notes what each cell holds, another joins the notes of its neighbors.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from carvana_ray.unet.loss import EDGE_CELLS

VALUES = 1024  # pixels or cells of one program


def edge_weights(target: Tensor, size: tuple[int, int], edge_weight: float) -> Tensor:
    """Return how many times the cross entropy of a cell's pixels counts: float32 [B, h, w].

    Args:
        target: uint8 [B, f^2, h, w], channels last; f is a power of 2.
        size: height and width in pixels. Repeated pixels beyond them do not count.
        edge_weight: of the cells near a boundary; that of all others is 1.
    """
    count, channels, h, w = target.shape
    held = target.new_empty(count, h, w)
    result = torch.empty(count, h, w, device=target.device)
    with torch.cuda.device_of(target):
        _held_kernel[(triton.cdiv(h * w * channels, VALUES), count)](
            target, held, *size, h, w, math.isqrt(channels), VALUES
        )
        _edges_kernel[(triton.cdiv(h * w, VALUES), count)](
            held, result, edge_weight, h, w, EDGE_CELLS, VALUES
        )
    return result


def self_test(device: torch.device) -> None:
    """Run all kernels once, so that an error, such as no C compiler, comes early."""
    blank = torch.zeros(1, 16, 4, 4, dtype=torch.uint8, device=device)
    edge_weights(blank.contiguous(memory_format=torch.channels_last), (16, 16), 2.0)


@triton.jit
def _held_kernel(  # type: ignore[no-untyped-def]
    target,
    held,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    F: tl.constexpr,
    N: tl.constexpr,
):
    """Store 1 for a cell with background, 2 for one with car, 3 for one with both, or 0."""
    first = tl.program_id(1).to(tl.int64) * h * w
    at = tl.program_id(0) * (N // (F * F)) + tl.arange(0, N // (F * F))
    cell, channel = at[:, None], tl.arange(0, F * F)[None, :]
    y, x = cell // w * F + channel // F, cell % w * F + channel % F
    real = (cell < h * w) & ((y < H) & (x < W))
    level = tl.load(target + (first + cell) * (F * F) + channel, mask=real, other=0).to(tl.int32)
    car = tl.max(tl.where(real & (level > 127), 2, 0), axis=1)
    background = tl.max(tl.where(real & (level < 128), 1, 0), axis=1)
    tl.store(held + first + at, (car + background).to(tl.uint8), mask=at < h * w)


@triton.jit
def _edges_kernel(  # type: ignore[no-untyped-def]
    held, result, edge_weight, h: tl.constexpr, w: tl.constexpr, R: tl.constexpr, N: tl.constexpr
):
    first = tl.program_id(1).to(tl.int64) * h * w
    at = tl.program_id(0) * N + tl.arange(0, N)
    y, x = at // w, at % w
    found = tl.zeros([N], tl.int32)
    for step in tl.static_range((2 * R + 1) * (2 * R + 1)):
        row, column = y + step // (2 * R + 1) - R, x + step % (2 * R + 1) - R
        inside = ((row >= 0) & (row < h)) & ((column >= 0) & (column < w))
        found |= tl.load(held + first + row * w + column, mask=inside, other=0).to(tl.int32)
    tl.store(result + first + at, tl.where(found == 3, edge_weight, 1.0), mask=at < h * w)
