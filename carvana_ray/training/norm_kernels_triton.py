"""Batch normalization, ReLU, pooling and joining of a U-Net's levels in few passes over memory.

A map of a level is read or written once in each of three passes forward and five backward; torch's
operations take eight and more, and thirteen and more. Maps are channels-last, in half precision as
a rule; statistics and sums are float32. Sums add up in a fixed order, so results repeat exactly.

Reductions go from the end of a map to its start, as the end is what the pass before left in the
cache; the other passes go from start to end for the same reason.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from carvana_ray.inference.unet_kernels_triton import upconv_into

CHANNELS = 64  # of one program, at most
PROGRAMS = 1024  # that share a reduction; each leaves a partial result
VALUES, POOL_VALUES = 4096, 1024  # of a map that a program has at a time; of the pooled map
WARPS = 4


def batch_statistics(z: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return the statistics of a batch, and update the running statistics as `norm` does.

    Args:
        z: [B, C, H, W], the output of a convolution.

    Returns:
        mean and ``1 / sqrt(variance + eps)`` of each channel, float32 [2, C]. The variance is that
        of Chan, Golub and LeVeque 1979, formula 2.1, over the parts that the programs had.
    """
    pixels, channels = z.numel() // z.shape[1], z.shape[1]
    tile, grid = _reduction(pixels, channels, VALUES)
    partial = z.new_empty(grid[0], 3, channels, dtype=torch.float32)
    statistics = z.new_empty(2, channels, dtype=torch.float32)
    with torch.cuda.device_of(z):
        _statistics_kernel[grid](z, partial, pixels, channels, *tile, num_warps=WARPS)
        _combine_kernel[(triton.cdiv(channels, 8),)](
            partial,
            statistics,
            norm.running_mean,
            norm.running_var,
            pixels,
            channels,
            norm.momentum,
            norm.eps,
            grid[0],
            triton.next_power_of_2(grid[0]),
            8,
        )
    return statistics


def normalize(z: Tensor, statistics: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return ``relu(norm(z))`` for the statistics of `batch_statistics`, [B, C, H, W] as z."""
    y = _empty(z, *z.shape)
    _normalize(z, statistics, norm, y, None)
    return y


def normalize_pool(z: Tensor, statistics: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a buffer that starts with ``relu(norm(z))``, and its maxima over 2 x 2 pixels.

    Args:
        z: [B, C, H, W], H and W even.

    Returns:
        the buffer [B, 2 C, H, W], whose last C channels are not set, and [B, C, H / 2, W / 2].
    """
    count, channels, height, width = z.shape
    buffer = _empty(z, count, 2 * channels, height, width)
    pooled = _empty(z, count, channels, height // 2, width // 2)
    _normalize(z, statistics, norm, buffer, pooled)
    return buffer, pooled


def _normalize(
    z: Tensor, statistics: Tensor, norm: nn.BatchNorm2d, y: Tensor, pooled: Tensor | None
) -> None:
    parts, pixels, width = _parts(z, pooled)
    tile, grid = _tiles(pixels, z.shape[1], VALUES if pooled is None else POOL_VALUES)
    shape = (pixels, width, z.shape[1], y.shape[1])
    with torch.cuda.device_of(z):
        _normalize_kernel[grid](
            z, statistics, norm.weight, norm.bias, y, pooled, *shape, parts, *tile, num_warps=WARPS
        )


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
    parts, pixels, width = _parts(z, grad_pooled)
    channels = z.shape[1]
    values = VALUES if grad_pooled is None else POOL_VALUES
    maps = (z, statistics, norm.weight, norm.bias, grad, grad_pooled)
    shape = (pixels, width, channels, grad.shape[1])
    tile, grid = _reduction(pixels, channels, values)
    partial = z.new_empty(grid[0], 2, channels, dtype=torch.float32)
    grad_z = _empty(z, *z.shape)
    with torch.cuda.device_of(z):
        _backward_sums_kernel[grid](*maps, partial, *shape, parts, *tile, num_warps=WARPS)
        sums = partial.sum(0)
        tile, grid = _tiles(pixels, channels, values)
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
    tile, grid = _reduction(pixels, channels, POOL_VALUES)
    columns = grad.new_empty(pixels, 4 * channels)
    partial = grad.new_empty(grid[0], channels, dtype=torch.float32)
    with torch.cuda.device_of(grad):
        _gather_kernel[grid](
            grad, columns, partial, pixels, width, channels, *tile, num_warps=WARPS
        )
    return columns, partial.sum(0)


def self_test(device: torch.device) -> None:
    """Run each kernel once, so that an error comes early."""
    norm = nn.BatchNorm2d(32, device=device)
    z = _empty(torch.empty((), dtype=torch.float16, device=device), 1, 32, 2, 2).zero_()
    statistics = batch_statistics(z, norm)
    normalize_backward(z, statistics, norm, normalize(z, statistics, norm), None, False)
    buffer, pooled = normalize_pool(z, statistics, norm)
    normalize_backward(z, statistics, norm, buffer, pooled, False)
    gather_upper(buffer)
    weight = torch.zeros(64, 32, 2, 2, dtype=z.dtype, device=device)
    coarse = torch.zeros(1, 64, 1, 1, dtype=z.dtype, device=device)
    upconv_into(buffer, coarse, weight, weight[0, :, 0, 0].contiguous())


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _parts(z: Tensor, pooled: Tensor | None) -> tuple[int, int, int]:
    """Return how many pixels of a map a program's pixel stands for; its pixels; its width."""
    count, _, height, width = z.shape
    if pooled is None:
        return 1, count * height * width, width
    return 4, count * (height // 2) * (width // 2), width // 2


def _tiles(pixels: int, channels: int, values: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return pixels and channels of a program, and the grid of programs over a map."""
    columns = min(CHANNELS, triton.next_power_of_2(channels))
    rows = values // columns
    return (rows, columns), (triton.cdiv(pixels, rows), triton.cdiv(channels, columns))


def _reduction(pixels: int, channels: int, values: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the same for a reduction, whose programs have several tiles each."""
    tile, (tiles, blocks) = _tiles(pixels, channels, values)
    return tile, (min(tiles, triton.cdiv(PROGRAMS, blocks)), blocks)


@triton.jit
def _position(pixel, k, width, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the pixel of a map that is part k of a pixel of the pooled map, or the pixel."""
    if PARTS == 1:
        return pixel.to(tl.int64)
    row, column = pixel // width, pixel % width
    return (2 * row + k // 2).to(tl.int64) * (2 * width) + 2 * column + k % 2


@triton.jit
def _affine(statistics, weight, bias, channel, C):  # type: ignore[no-untyped-def]
    """Return mean, 1 / deviation, weight and bias of channels, each as a row."""
    inside = channel < C
    mean = tl.load(statistics + channel, mask=inside, other=0.0)
    scale = tl.load(statistics + C + channel, mask=inside, other=0.0)
    weight = tl.load(weight + channel, mask=inside, other=0.0)
    bias = tl.load(bias + channel, mask=inside, other=0.0)
    return mean[None, :], scale[None, :], weight[None, :], bias[None, :]


@triton.jit
def _activate(x, weight, bias, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ReLU as it is stored. NaN stays: it tells that a step overflowed."""
    return tl.maximum(x * weight + bias, 0.0, propagate_nan=tl.PropagateNan.ALL).to(dtype)


@triton.jit
def _statistics_kernel(z, partial, pixels, C, P: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store number, mean and sum of squared deviations of each channel over every n-th tile."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    is_channel = channel < C
    tiles = tl.cdiv(pixels, P)
    # Deviations from any value of the part are small where the mean is large.
    first = (tiles - 1 - program).to(tl.int64) * P * C
    shift = tl.load(z + first + channel, mask=is_channel, other=0.0).to(tl.float32)
    total = tl.zeros([P, K], tl.float32)
    squares = tl.zeros([P, K], tl.float32)
    count = 0.0
    for tile in range(program, tiles, programs):
        pixel = (tiles - 1 - tile) * P + tl.arange(0, P)
        inside = (pixel < pixels)[:, None] & is_channel[None, :]
        at = pixel.to(tl.int64)[:, None] * C + channel[None, :]
        value = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - shift[None, :], 0.0)
        total += value
        squares += value * value
        count += tl.minimum(P, pixels - (tiles - 1 - tile) * P)
    added = tl.sum(total, axis=0)
    m2 = tl.maximum(tl.sum(squares, axis=0) - added * added / count, 0.0, tl.PropagateNan.ALL)
    partial += program * 3 * C + channel
    tl.store(partial, count + 0 * shift, mask=is_channel)
    tl.store(partial + C, shift + added / count, mask=is_channel)
    tl.store(partial + 2 * C, m2, mask=is_channel)


@triton.jit
def _combine_kernel(  # type: ignore[no-untyped-def]
    partial,
    statistics,
    running_mean,
    running_var,
    pixels,
    C,
    momentum,
    eps,
    programs,
    ROWS: tl.constexpr,
    K: tl.constexpr,
):
    channel = tl.program_id(0) * K + tl.arange(0, K)
    row = tl.arange(0, ROWS)
    is_channel = channel < C
    inside = (row < programs)[:, None] & is_channel[None, :]
    partial += row[:, None] * 3 * C + channel[None, :]
    count = tl.load(partial, mask=inside, other=0.0)
    means = tl.load(partial + C, mask=inside, other=0.0)
    m2 = tl.load(partial + 2 * C, mask=inside, other=0.0)
    mean = tl.sum(count * means, axis=0) / pixels
    apart = means - mean[None, :]
    total = tl.sum(m2 + count * apart * apart, axis=0)
    tl.store(statistics + channel, mean, mask=is_channel)
    tl.store(statistics + C + channel, 1 / tl.sqrt(total / pixels + eps), mask=is_channel)
    running_mean += channel
    running_var += channel
    before = tl.load(running_mean, mask=is_channel)
    tl.store(running_mean, before + momentum * (mean - before), mask=is_channel)
    before = tl.load(running_var, mask=is_channel)
    tl.store(running_var, before + momentum * (total / (pixels - 1) - before), mask=is_channel)


@triton.jit
def _normalize_kernel(  # type: ignore[no-untyped-def]
    z,
    statistics,
    weight,
    bias,
    y,
    pooled,
    pixels,
    width,
    C,
    S,  # channels of y
    PARTS: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
):
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
    mean, scale, weight, bias = _affine(statistics, weight, bias, channel, C)
    dtype: tl.constexpr = z.dtype.element_ty
    maximum = tl.zeros([P, K], dtype)  # of values that are not negative
    for k in tl.static_range(PARTS):
        position = _position(pixel, k, width, PARTS)[:, None]
        value = tl.load(z + position * C + channel[None, :], mask=inside, other=0.0)
        value = _activate((value.to(tl.float32) - mean) * scale, weight, bias, dtype)
        tl.store(y + position * S + channel[None, :], value, mask=inside)
        maximum = tl.maximum(maximum, value, propagate_nan=tl.PropagateNan.ALL)
    if PARTS > 1:
        at = pixel.to(tl.int64)[:, None] * C + channel[None, :]
        tl.store(pooled + at, maximum, mask=inside)


@triton.jit
def _part(z, affine, grad, position, channel, inside, C, S):  # type: ignore[no-untyped-def]
    """Return normalized values, results of `normalize` and their gradients, at pixels of a map."""
    mean, scale, weight, bias = affine
    x = tl.load(z + position[:, None] * C + channel[None, :], mask=inside, other=0.0)
    x = (x.to(tl.float32) - mean) * scale
    g = tl.load(grad + position[:, None] * S + channel[None, :], mask=inside, other=0.0)
    return x, _activate(x, weight, bias, z.dtype.element_ty), g.to(tl.float32)


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    z, affine, grad, grad_pooled, pixel, channel, inside, width, C, S, PARTS: tl.constexpr
):
    """Return normalized values and gradients before ReLU, a tuple with a tile for each part.

    S is the number of channels of grad.
    """
    at = _position(pixel, 0, width, PARTS)
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
):
    """Store the sums of the gradient, and of gradient times normalized value, of each channel."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    affine = _affine(statistics, weight, bias, channel, C)
    total = tl.zeros([P, K], tl.float32)
    products = tl.zeros([P, K], tl.float32)
    tiles = tl.cdiv(pixels, P)
    for tile in range(program, tiles, programs):
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
    share,  # 1 / number of values of a channel; 0 for fixed statistics
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
    affine = _affine(statistics, weight, bias, channel, C)
    total = tl.load(sums + channel, mask=is_channel, other=0.0)[None, :] * share
    products = tl.load(sums + C + channel, mask=is_channel, other=0.0)[None, :] * share
    xs, gs = _gradients(z, affine, grad, grad_pooled, pixel, channel, inside, width, C, S, PARTS)
    for k in tl.static_range(PARTS):
        value = affine[1] * affine[2] * (gs[k] - total - xs[k] * products)
        at = _position(pixel, k, width, PARTS)[:, None] * C + channel[None, :]
        tl.store(grad_z + at, value.to(grad_z.dtype.element_ty), mask=inside)


@triton.jit
def _gather_kernel(grad, columns, partial, pixels, width, C, P: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    total = tl.zeros([P, K], tl.float32)
    for tile in range(program, tl.cdiv(pixels, P), programs):
        pixel = tile * P + tl.arange(0, P)
        inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
        for k in tl.static_range(4):
            source = _position(pixel, k, width, 4)[:, None] * (2 * C) + C + channel[None, :]
            value = tl.load(grad + source, mask=inside, other=0.0)
            target = pixel.to(tl.int64)[:, None] * (4 * C) + k * C + channel[None, :]
            tl.store(columns + target, value, mask=inside)
            total += value.to(tl.float32)
    tl.store(partial + program * C + channel, tl.sum(total, axis=0), mask=channel < C)
