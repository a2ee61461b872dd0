"""Batch normalization, ReLU and pooling on a GPU: two passes over a map.

A map is read once for the statistics of a batch, and read and written once to normalize it. Maps
are channels-last, in half precision as a rule; statistics are float32. Sums add up in a fixed
order, so results repeat exactly.

Reductions go from the end of a map to its start, as the end is what the pass before left in the
cache; the other passes go from start to end for the same reason.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

CHANNELS = 64  # of one program, at most
VALUES, POOL_VALUES = 4096, 1024  # of a map that a program has at a time; of the pooled map
PROGRAMS = 512  # that share a reduction; each leaves a partial result
SUM_VALUES, SUM_POOL_VALUES = 2048, 512  # that such a program has at a time
STAGES = 3  # tiles that such a program loads ahead
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
    tile, grid = reduction_grid(pixels, channels, SUM_VALUES)
    partial = z.new_empty(grid[0], 3, channels, dtype=torch.float32)
    statistics = z.new_empty(2, channels, dtype=torch.float32)
    with torch.cuda.device_of(z):
        _statistics_kernel[grid](z, partial, pixels, channels, *tile, STAGES, num_warps=WARPS)
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
    y = empty(z, *z.shape)
    _write(z, statistics, norm, y, None)
    return y


def normalize_pool(z: Tensor, statistics: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a buffer that starts with ``relu(norm(z))``, and its maxima over 2 x 2 pixels.

    Args:
        z: [B, C, H, W], H and W even.

    Returns:
        the buffer [B, 2 C, H, W], whose last C channels are not set, and [B, C, H / 2, W / 2].
    """
    count, channels, height, width = z.shape
    buffer = empty(z, count, 2 * channels, height, width)
    pooled = empty(z, count, channels, height // 2, width // 2)
    _write(z, statistics, norm, buffer, pooled)
    return buffer, pooled


def _write(
    z: Tensor, statistics: Tensor, norm: nn.BatchNorm2d, y: Tensor, pooled: Tensor | None
) -> None:
    parts, pixels, width = parts_of(z, pooled)
    tile, grid = tile_grid(pixels, z.shape[1], VALUES if pooled is None else POOL_VALUES)
    shape = (pixels, width, z.shape[1], y.shape[1])
    with torch.cuda.device_of(z):
        _normalize_kernel[grid](
            z, statistics, norm.weight, norm.bias, y, pooled, *shape, parts, *tile, num_warps=WARPS
        )


def empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def parts_of(z: Tensor, pooled: Tensor | None) -> tuple[int, int, int]:
    """Return how many pixels of a map a program's pixel stands for; its pixels; its width."""
    count, _, height, width = z.shape
    if pooled is None:
        return 1, count * height * width, width
    return 4, count * (height // 2) * (width // 2), width // 2


def tile_grid(pixels: int, channels: int, values: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return pixels and channels of a program, and the grid of programs over a map."""
    columns = min(CHANNELS, triton.next_power_of_2(channels))
    rows = values // columns
    return (rows, columns), (triton.cdiv(pixels, rows), triton.cdiv(channels, columns))


def reduction_grid(
    pixels: int, channels: int, values: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the same for a reduction, whose programs have several tiles each."""
    tile, (tiles, blocks) = tile_grid(pixels, channels, values)
    return tile, (min(tiles, triton.cdiv(PROGRAMS, blocks)), blocks)


def add_rows(partial: Tensor) -> Tensor:
    """Return the sum over the first axis, float32, added up in a fixed order."""
    total = torch.empty_like(partial[0])
    rows, columns = len(partial), total.numel()
    with torch.cuda.device_of(partial):
        _add_kernel[(triton.cdiv(columns, 8),)](
            partial, total, rows, columns, triton.next_power_of_2(rows), 8
        )
    return total


@triton.jit
def _add_kernel(partial, total, rows, columns, R: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.arange(0, R)
    column = tl.program_id(0) * K + tl.arange(0, K)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    values = tl.load(partial + row[:, None] * columns + column[None, :], mask=inside, other=0.0)
    tl.store(total + column, tl.sum(values, axis=0), mask=column < columns)


@triton.jit
def position_of(pixel, k, width, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the pixel of a map that is part k of a pixel of the pooled map, or the pixel."""
    if PARTS == 1:
        return pixel.to(tl.int64)
    row, column = pixel // width, pixel % width
    return (2 * row + k // 2).to(tl.int64) * (2 * width) + 2 * column + k % 2


@triton.jit
def load_affine(statistics, weight, bias, channel, C):  # type: ignore[no-untyped-def]
    """Return mean, 1 / deviation, weight and bias of channels, each as a row."""
    inside = channel < C
    mean = tl.load(statistics + channel, mask=inside, other=0.0)
    scale = tl.load(statistics + C + channel, mask=inside, other=0.0)
    weight = tl.load(weight + channel, mask=inside, other=0.0)
    bias = tl.load(bias + channel, mask=inside, other=0.0)
    return mean[None, :], scale[None, :], weight[None, :], bias[None, :]


@triton.jit
def activate(x, weight, bias, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ReLU as it is stored. NaN stays: it tells that a step overflowed."""
    return tl.maximum(x * weight + bias, 0.0, propagate_nan=tl.PropagateNan.ALL).to(dtype)


@triton.jit
def _statistics_kernel(  # type: ignore[no-untyped-def]
    z, partial, pixels, C, P: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr
):
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
    for tile in tl.range(program, tiles, programs, num_stages=STAGES):
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
    mean, scale, weight, bias = load_affine(statistics, weight, bias, channel, C)
    dtype: tl.constexpr = z.dtype.element_ty
    maximum = tl.zeros([P, K], dtype)  # of values that are not negative
    for k in tl.static_range(PARTS):
        position = position_of(pixel, k, width, PARTS)[:, None]
        value = tl.load(z + position * C + channel[None, :], mask=inside, other=0.0)
        value = activate((value.to(tl.float32) - mean) * scale, weight, bias, dtype)
        tl.store(y + position * S + channel[None, :], value, mask=inside)
        maximum = tl.maximum(maximum, value, propagate_nan=tl.PropagateNan.ALL)
    if PARTS > 1:
        at = pixel.to(tl.int64)[:, None] * C + channel[None, :]
        tl.store(pooled + at, maximum, mask=inside)
