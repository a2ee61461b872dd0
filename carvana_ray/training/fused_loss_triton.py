"""The passes of `fused_loss` on a GPU: all sums in one, the gradient in another.

Each element is computed in float32. Sums are those of programs, combined in a fixed order, so the
same batch gives the same bits.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from carvana_ray.training.edge_weights_triton import edge_weights

VALUES = 1024  # logits that one program computes at a time
PROGRAMS = 2048  # of the pass for the sums: enough to fill a GPU, few enough to combine in one
WARPS = 4
SUMS = 5  # cross entropy, p * t, p + t; pixels in both masks, in either one


def sums(
    logits: Tensor, target: Tensor, weight: Tensor, size: tuple[int, int], edge_weight: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the results of `fused_loss.folded_sums`, without a gradient, and `edge_weights`.

    Args:
        logits: [B, P, h, w], channels last.
        target: uint8 [B, f^2, h, w], channels last; f is a power of 2.
        weight: float32 [B].
        size: height and width in pixels.
        edge_weight: 1 gives no edges, None.
    """
    edges = None if edge_weight == 1 else edge_weights(target, size, edge_weight)
    count, channels, h, w = logits.shape
    fold = math.isqrt(target.shape[1])
    values = h * w * fold**2  # of an image
    steps = triton.cdiv(values, max(PROGRAMS // count, 1) * VALUES)
    tiles = triton.cdiv(values, VALUES * steps)
    partial = logits.new_empty((SUMS, count, tiles), dtype=torch.float32)
    of_loss = logits.new_empty(4, dtype=torch.float32)
    counts = logits.new_empty(3, dtype=torch.float64)
    block = [triton.next_power_of_2(length) for length in (count, tiles)]
    with torch.cuda.device_of(logits):
        _sums_kernel[(tiles, count)](
            logits, target, weight, edges, partial,
            *size, h, w, fold, channels, steps, VALUES,
            num_warps=WARPS,
        )  # fmt: skip
        _combine_kernel[(1,)](
            partial, weight, of_loss, counts, size[0] * size[1], count, tiles, *block, num_warps=8
        )
    return of_loss, counts, edges


def gradient(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    size: tuple[int, int],
    edges: Tensor | None,
    of_sums: Tensor,
) -> Tensor:
    """Return the gradient to the logits, in their shape and dtype, channels last.

    Args:
        edges: the third result of `sums`.
        of_sums: float32 [4], the gradient to the first one.
    """
    count, channels, h, w = logits.shape
    result = torch.empty_like(logits, memory_format=torch.channels_last)
    with torch.cuda.device_of(logits):
        _gradient_kernel[(triton.cdiv(h * w * channels, VALUES), count)](
            logits, target, weight, edges, of_sums.contiguous(), result,
            *size, h, w, math.isqrt(target.shape[1]), channels, VALUES,
            num_warps=WARPS,
        )  # fmt: skip
    return result


def self_test(device: torch.device) -> None:
    """Run all kernels once, so that an error, such as no C compiler, comes early."""
    logits = torch.zeros(1, 16, 4, 4, dtype=torch.float16, device=device)
    logits = logits.contiguous(memory_format=torch.channels_last)
    target, weight = logits.to(torch.uint8), torch.ones(1, device=device)
    of_loss, _, edges = sums(logits, target, weight, (16, 16), 2.0)
    gradient(logits, target, weight, (16, 16), edges, of_loss)


@triton.jit
def _load(  # type: ignore[no-untyped-def]
    logits,
    target,
    cell,
    channel,
    factor,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    F: tl.constexpr,
    P: tl.constexpr,
):
    """Return logits and soft masks 0..1, and which of them count; the others are 0."""
    real = (cell < tl.where(factor > 0, h * w, 0)) & (channel < F * F)
    x = tl.load(logits + cell * P + channel, mask=real, other=0.0).to(tl.float32)
    t = tl.load(target + cell * (F * F) + channel, mask=real, other=0).to(tl.float32) * (1 / 255)
    if h * F > H:
        real &= cell // w * F + channel // F < H
    if w * F > W:
        real &= cell % w * F + channel % F < W
    return tl.where(real, x, 0.0), tl.where(real, t, 0.0), real


@triton.jit
def _times(edges, cell, cells):  # type: ignore[no-untyped-def]
    """Return how many times the cross entropy of each cell counts."""
    return 1.0 if edges is None else tl.load(edges + cell, mask=cell < cells, other=0.0)


@triton.jit
def _log1p(z):  # type: ignore[no-untyped-def]
    """Return log(1 + z) of z in 0..1 to 3e-7 of its value, also for small z.

    By 2 artanh(z / (2 + z)) and its series; a logarithm of 1 + z would have lost the digits of z.
    """
    s = z / (2.0 + z)
    q = s * s
    series = 1 / 9 + q * (1 / 11 + q * (1 / 13))
    return 2.0 * s * (1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * series))))


@triton.jit
def _sums_kernel(  # type: ignore[no-untyped-def]
    logits,
    target,
    weight,
    edges,
    partial,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    F: tl.constexpr,
    P: tl.constexpr,
    STEPS: tl.constexpr,
    N: tl.constexpr,
):
    tile, image = tl.program_id(0), tl.program_id(1)
    logits += image.to(tl.int64) * h * w * P
    target += image.to(tl.int64) * h * w * F * F
    if edges is not None:
        edges += image.to(tl.int64) * h * w
    factor = tl.load(weight + image)
    entropy = tl.zeros([N // (F * F), F * F], tl.float32)
    product, total, both, either = entropy, entropy, entropy, entropy
    for step in range(STEPS):
        cell = (tile * STEPS + step) * (N // (F * F)) + tl.arange(0, N // (F * F))[:, None]
        channel = tl.arange(0, F * F)[None, :]
        x, t, keep = _load(logits, target, cell, channel, factor, H, W, h, w, F, P)
        z = tl.exp(-tl.abs(x))
        p = tl.where(keep, tl.where(x >= 0, 1.0, z) / (1.0 + z), 0.0)
        # As torch: the last two terms are the logarithm of the sigmoid.
        value = (1.0 - t) * x - (tl.minimum(x, 0.0) - _log1p(z))
        entropy += tl.where(keep, _times(edges, cell, h * w) * value, 0.0)
        product += p * t
        total += p + t
        mask, truth = x > 0, t > 0.5
        both += tl.where(mask & truth, 1.0, 0.0)
        either += tl.where(mask, 1.0, 0.0) + tl.where(truth, 1.0, 0.0)
    partial += image * tl.num_programs(0) + tile
    stride = tl.num_programs(0) * tl.num_programs(1)
    tl.store(partial, tl.sum(entropy))
    tl.store(partial + stride, tl.sum(product))
    tl.store(partial + 2 * stride, tl.sum(total))
    tl.store(partial + 3 * stride, tl.sum(both))
    tl.store(partial + 4 * stride, tl.sum(either))


@triton.jit
def _combine_kernel(  # type: ignore[no-untyped-def]
    partial, weight, sums, counts, pixels, count, tiles, IMAGES: tl.constexpr, TILES: tl.constexpr
):
    """Combine the sums of all programs, image by image."""
    image, tile = tl.arange(0, IMAGES), tl.arange(0, TILES)
    inside = (image < count)[:, None] & (tile < tiles)[None, :]
    at = partial + image[:, None] * tiles + tile[None, :]
    factor = tl.load(weight + image, mask=image < count, other=0.0)
    for part in tl.static_range(3):
        values = tl.load(at + part * count * tiles, mask=inside, other=0.0)
        tl.store(sums + part, tl.sum(values))
    tl.store(sums + 3, tl.sum((factor > 0).to(tl.float32)) * pixels)
    both = tl.load(at + 3 * count * tiles, mask=inside, other=0.0).to(tl.int32)  # exact
    either = tl.load(at + 4 * count * tiles, mask=inside, other=0.0).to(tl.int32)
    both, either = tl.sum(both, axis=1), tl.sum(either, axis=1)
    dice = tl.where(either > 0, 2 * both / tl.maximum(either, 1), 1.0).to(tl.float64)
    agree = ((pixels - either + 2 * both) / pixels).to(tl.float64)
    tl.store(counts, tl.sum(factor.to(tl.float64)))
    tl.store(counts + 1, tl.sum(dice * factor))
    tl.store(counts + 2, tl.sum(agree * factor))


@triton.jit
def _gradient_kernel(  # type: ignore[no-untyped-def]
    logits,
    target,
    weight,
    edges,
    of_sums,
    result,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    F: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
):
    image = tl.program_id(1)
    first = image.to(tl.int64) * h * w
    at = tl.program_id(0) * N + tl.arange(0, N)
    cell = at // P
    factor = tl.load(weight + image)
    x, t, keep = _load(
        logits + first * P, target + first * F * F, cell, at % P, factor, H, W, h, w, F, P
    )
    z = tl.exp(-tl.abs(x))
    p = tl.where(x >= 0, 1.0, z) / (1.0 + z)
    slope = tl.load(of_sums + 1) * t + tl.load(of_sums + 2)
    if edges is not None:
        edges += first
    of_entropy = tl.load(of_sums) * _times(edges, cell, h * w)
    value = of_entropy * (p - t) + slope * p * (1.0 - p)
    value = tl.where(keep, value, 0.0).to(result.dtype.element_ty)
    tl.store(result + first * P + at, value, mask=cell < h * w)
