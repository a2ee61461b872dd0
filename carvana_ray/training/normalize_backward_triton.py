"""The backward pass of `normalize_triton` on a GPU: two passes over a map and its gradient.

The first pass sums up what the second one needs. Both compute anew what `normalize_triton` wrote,
from the input of the normalization, and add the gradient of the pooled map on the way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from carvana_ray.training import normalize_triton as forward
from carvana_ray.training.normalize_triton import WARPS, activate, load_affine, position_of


def normalize_backward(
    z: Tensor,
    statistics: Tensor,
    norm: nn.BatchNorm2d,
    grad: Tensor,
    grad_pooled: Tensor | None,
    fixed: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of z, as z, and of the bias and weight of `norm`, float32 [2, C].

    Args:
        grad: gradient of the result of `normalize`, or of the buffer of `normalize_pool`, whose
            last C channels do not matter.
        grad_pooled: gradient of the pooled map of `normalize_pool`. Of equal maxima the first one
            in row order gets it, as in `torch.nn.functional.max_pool2d`.
        fixed: the statistics do not depend on z (evaluation mode).
    """
    parts, pixels, width = forward.parts_of(z, grad_pooled)
    channels = z.shape[1]
    maps = (z, statistics, norm.weight, norm.bias, grad, grad_pooled)
    shape = (pixels, width, channels, grad.shape[1])
    plain = grad_pooled is None
    values = forward.SUM_VALUES if plain else forward.SUM_POOL_VALUES
    tile, grid = forward.reduction_grid(pixels, channels, values)
    partial = z.new_empty(grid[0], 2, channels, dtype=torch.float32)
    grad_z = forward.empty(z, *z.shape)
    with torch.cuda.device_of(z):
        _backward_sums_kernel[grid](
            *maps, partial, *shape, parts, *tile, forward.STAGES, num_warps=WARPS
        )
        sums = forward.add_rows(partial)
        values = forward.VALUES if plain else forward.POOL_VALUES
        tile, grid = forward.tile_grid(pixels, channels, values)
        weight = 0.0 if fixed else channels / z.numel()
        _backward_kernel[grid](*maps, sums, grad_z, weight, *shape, parts, *tile, num_warps=WARPS)
    return grad_z, sums


def gather_upper(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last half of the channels by blocks of 2 x 2 pixels, and their sums.

    Args:
        grad: [B, 2 C, H, W], H and W even.

    Returns:
        [B H / 2 W / 2, 4 C], the columns in the order (row, column, channel) of a block; and
        float32 [C].
    """
    channels = grad.shape[1] // 2
    pixels, width = grad.numel() // grad.shape[1] // 4, grad.shape[3] // 2
    tile, grid = forward.reduction_grid(pixels, channels, forward.SUM_POOL_VALUES)
    columns = grad.new_empty(pixels, 4 * channels)
    partial = grad.new_empty(grid[0], channels, dtype=torch.float32)
    with torch.cuda.device_of(grad):
        _gather_kernel[grid](
            grad, columns, partial, pixels, width, channels, *tile, forward.STAGES, num_warps=WARPS
        )
    return columns, forward.add_rows(partial)


@triton.jit
def _part(z, affine, grad, position, channel, inside, C, S):  # type: ignore[no-untyped-def]
    """Return normalized values, results of `normalize` and their gradients, at pixels of a map."""
    mean, scale, weight, bias = affine
    x = tl.load(z + position[:, None] * C + channel[None, :], mask=inside, other=0.0)
    x = (x.to(tl.float32) - mean) * scale
    g = tl.load(grad + position[:, None] * S + channel[None, :], mask=inside, other=0.0)
    return x, activate(x, weight, bias, z.dtype.element_ty), g.to(tl.float32)


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    z, affine, grad, grad_pooled, pixel, channel, inside, width, C, S, PARTS: tl.constexpr
):
    """Return normalized values and gradients before ReLU, a tuple with a tile for each part.

    S is the number of channels of grad.
    """
    at = position_of(pixel, 0, width, PARTS)
    x0, y0, g0 = _part(z, affine, grad, at, channel, inside, C, S)
    if PARTS == 1:
        return (x0,), (tl.where(y0 > 0, g0, 0.0),)
    else:  # noqa: RET505 - Triton would compile these lines for one part as well
        x1, y1, g1 = _part(z, affine, grad, at + 1, channel, inside, C, S)
        x2, y2, g2 = _part(z, affine, grad, at + 2 * width, channel, inside, C, S)
        x3, y3, g3 = _part(z, affine, grad, at + 2 * width + 1, channel, inside, C, S)
        source = grad_pooled + pixel.to(tl.int64)[:, None] * C + channel[None, :]
        pooled = tl.load(source, mask=inside, other=0.0).to(tl.float32)
        maximum = tl.maximum(tl.maximum(y0, y1), tl.maximum(y2, y3))
        late1 = y0 == maximum  # whether a part before part 1 is the maximum
        late2 = late1 | (y1 == maximum)
        late3 = late2 | (y2 == maximum)
        g0 = tl.where(y0 > 0, g0 + tl.where(late1, pooled, 0.0), 0.0)
        g1 = tl.where(y1 > 0, g1 + tl.where(late1 == late2, 0.0, pooled), 0.0)
        g2 = tl.where(y2 > 0, g2 + tl.where(late2 == late3, 0.0, pooled), 0.0)
        g3 = tl.where(y3 > 0, g3 + tl.where(late3, 0.0, pooled), 0.0)
        return (x0, x1, x2, x3), (g0, g1, g2, g3)


@triton.jit
def _backward_sums_kernel(  # type: ignore[no-untyped-def]
    z,
    statistics,
    weight,
    bias,
    grad,
    grad_pooled,
    partial,
    pixels,
    width,
    C,
    S,
    PARTS: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Store the sums of the gradient, and of gradient times normalized value, of each channel."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    affine = load_affine(statistics, weight, bias, channel, C)
    total = tl.zeros([P, K], tl.float32)
    products = tl.zeros([P, K], tl.float32)
    tiles = tl.cdiv(pixels, P)
    for tile in tl.range(program, tiles, programs, num_stages=STAGES):
        pixel = (tiles - 1 - tile) * P + tl.arange(0, P)
        inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
        xs, gs = _gradients(
            z, affine, grad, grad_pooled, pixel, channel, inside, width, C, S, PARTS
        )
        for k in tl.static_range(PARTS):
            total += gs[k]
            products += gs[k] * xs[k]
    partial += program * 2 * C + channel
    tl.store(partial, tl.sum(total, axis=0), mask=channel < C)
    tl.store(partial + C, tl.sum(products, axis=0), mask=channel < C)


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    z,
    statistics,
    weight,
    bias,
    grad,
    grad_pooled,
    sums,
    grad_z,
    part,  # 1 / number of values of a channel; 0 for fixed statistics
    pixels,
    width,
    C,
    S,
    PARTS: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
):
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    is_channel = channel < C
    inside = (pixel < pixels)[:, None] & is_channel[None, :]
    affine = load_affine(statistics, weight, bias, channel, C)
    total = tl.load(sums + channel, mask=is_channel, other=0.0)[None, :] * part
    products = tl.load(sums + C + channel, mask=is_channel, other=0.0)[None, :] * part
    xs, gs = _gradients(z, affine, grad, grad_pooled, pixel, channel, inside, width, C, S, PARTS)
    for k in tl.static_range(PARTS):
        value = affine[1] * affine[2] * (gs[k] - total - xs[k] * products)
        at = position_of(pixel, k, width, PARTS)[:, None] * C + channel[None, :]
        tl.store(grad_z + at, value.to(grad_z.dtype.element_ty), mask=inside)


@triton.jit
def _gather_kernel(  # type: ignore[no-untyped-def]
    grad, columns, partial, pixels, width, C, P: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr
):
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    total = tl.zeros([P, K], tl.float32)
    for tile in tl.range(program, tl.cdiv(pixels, P), programs, num_stages=STAGES):
        pixel = tile * P + tl.arange(0, P)
        inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
        for k in tl.static_range(4):
            source = position_of(pixel, k, width, 4)[:, None] * (2 * C) + C + channel[None, :]
            value = tl.load(grad + source, mask=inside, other=0.0)
            target = pixel.to(tl.int64)[:, None] * (4 * C) + k * C + channel[None, :]
            tl.store(columns + target, value, mask=inside)
            total += value.to(tl.float32)
    tl.store(partial + program * C + channel, tl.sum(total, axis=0), mask=channel < C)
