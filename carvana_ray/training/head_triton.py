"""Batch normalization, ReLU and the 1 x 1 head of a U-Net in one pass forward and two backward.

The output of the last level is computed anew in each pass and never written: with torch's
operations it is written once and read five times, and its gradient written once and read twice.
Weights are rounded to the dtype of the maps, as under autocast; sums are float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from carvana_ray.training.normalize_triton import WARPS, activate, add_rows, load_affine

VALUES = 4096  # of a map that a program has at a time
PROGRAMS, STAGES = 512, 2  # as in `normalize_triton`


def head_logits(z: Tensor, statistics: Tensor, norm: nn.BatchNorm2d, head: nn.Conv2d) -> Tensor:
    """Return ``head(relu(norm(z)))``, [B, N, H, W], for `normalize_triton.batch_statistics`.

    Args:
        z: [B, C, H, W].
        head: float32, 1 x 1, from C to N channels.
    """
    count, channels, height, width = z.shape
    logits = torch.empty(
        (count, head.out_channels, height, width),
        dtype=z.dtype,
        device=z.device,
        memory_format=torch.channels_last,
    )
    pixels, tile = count * height * width, _tile(head)
    with torch.cuda.device_of(z):
        _head_kernel[(triton.cdiv(pixels, tile[0]),)](
            z,
            statistics,
            norm.weight,
            norm.bias,
            head.weight,
            head.bias,
            logits,
            pixels,
            channels,
            head.out_channels,
            *tile,
            num_warps=WARPS,
        )
    return logits


def head_backward(
    z: Tensor,
    statistics: Tensor,
    norm: nn.BatchNorm2d,
    head: nn.Conv2d,
    grad: Tensor,
    fixed: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients of z, the bias and weight of `norm`, and the weight and bias of `head`.

    Args:
        grad: gradient of the logits, [B, N, H, W].
        fixed: the statistics do not depend on z (evaluation mode).
    """
    channels, outputs, pixels = z.shape[1], head.out_channels, z.numel() // z.shape[1]
    tile = _tile(head)
    tiles = triton.cdiv(pixels, tile[0])
    sizes = [channels, channels, outputs * channels, outputs]
    partial = z.new_empty(min(tiles, PROGRAMS), sum(sizes), dtype=torch.float32)
    maps = (z, statistics, norm.weight, norm.bias, head.weight, grad)
    shape = (pixels, channels, outputs, *tile)
    grad_z = torch.empty_like(z)
    with torch.cuda.device_of(z):
        _head_sums_kernel[(len(partial),)](*maps, partial, *shape, STAGES, num_warps=WARPS)
        sums = add_rows(partial)
        weight = 0.0 if fixed else 1 / pixels
        _head_backward_kernel[(tiles,)](*maps, sums, grad_z, weight, *shape, num_warps=WARPS)
    grad_bias, grad_weight, head_weight, head_bias = sums.split(sizes)
    return grad_z, grad_bias, grad_weight, head_weight.view_as(head.weight), head_bias


def _tile(head: nn.Conv2d) -> tuple[int, int, int]:
    """Return pixels, channels and outputs of a program."""
    columns, outputs = (
        max(16, triton.next_power_of_2(n)) for n in (head.in_channels, head.out_channels)
    )
    return max(16, VALUES // columns), columns, outputs


@triton.jit
def _load(z, affine, pixel, channel, pixels, C):  # type: ignore[no-untyped-def]
    """Return normalized values of pixels, and the output of the last level."""
    mean, scale, weight, bias = affine
    inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
    x = tl.load(z + pixel.to(tl.int64)[:, None] * C + channel[None, :], mask=inside, other=0.0)
    x = (x.to(tl.float32) - mean) * scale
    return x, activate(x, weight, bias, z.dtype.element_ty)


@triton.jit
def _load_outputs(values, pixel, output, pixels, N):  # type: ignore[no-untyped-def]
    inside = (pixel < pixels)[:, None] & (output < N)[None, :]
    at = values + pixel.to(tl.int64)[:, None] * N + output[None, :]
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def _load_head(head, output, channel, C, N, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the weights of the head as [output, channel]."""
    inside = (output < N)[:, None] & (channel < C)[None, :]
    return tl.load(head + output[:, None] * C + channel[None, :], mask=inside, other=0.0).to(dtype)


@triton.jit
def _head_kernel(  # type: ignore[no-untyped-def]
    z,
    statistics,
    weight,
    bias,
    head,
    head_bias,
    logits,
    pixels,
    C,
    N,
    P: tl.constexpr,
    K: tl.constexpr,
    OUT: tl.constexpr,
):
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    channel, output = tl.arange(0, K), tl.arange(0, OUT)
    affine = load_affine(statistics, weight, bias, channel, C)
    _, y = _load(z, affine, pixel, channel, pixels, C)
    matrix = _load_head(head, output, channel, C, N, y.dtype)
    offset = tl.load(head_bias + output, mask=output < N, other=0.0).to(y.dtype).to(tl.float32)
    values = tl.dot(y, tl.trans(matrix), input_precision="ieee") + offset[None, :]
    at = logits + pixel.to(tl.int64)[:, None] * N + output[None, :]
    tl.store(at, values.to(y.dtype), mask=(pixel < pixels)[:, None] & (output < N)[None, :])


@triton.jit
def _head_sums_kernel(  # type: ignore[no-untyped-def]
    z,
    statistics,
    weight,
    bias,
    head,
    grad,
    partial,
    pixels,
    C,
    N,
    P: tl.constexpr,
    K: tl.constexpr,
    OUT: tl.constexpr,
    STAGES: tl.constexpr,
):
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel, output = tl.arange(0, K), tl.arange(0, OUT)
    affine = load_affine(statistics, weight, bias, channel, C)
    matrix = _load_head(head, output, channel, C, N, z.dtype.element_ty)
    total = tl.zeros([P, K], tl.float32)
    products = tl.zeros([P, K], tl.float32)
    grad_head = tl.zeros([OUT, K], tl.float32)
    grad_bias = tl.zeros([P, OUT], tl.float32)
    tiles = tl.cdiv(pixels, P)
    for tile in tl.range(program, tiles, programs, num_stages=STAGES):
        pixel = (tiles - 1 - tile) * P + tl.arange(0, P)
        x, y = _load(z, affine, pixel, channel, pixels, C)
        above = _load_outputs(grad, pixel, output, pixels, N)
        g = tl.where(y > 0, tl.dot(above, matrix, input_precision="ieee"), 0.0)
        total += g
        products += g * x
        grad_head = tl.dot(tl.trans(above), y, grad_head, input_precision="ieee")
        grad_bias += above.to(tl.float32)
    partial += program * (2 * C + N * C + N)
    is_channel, is_output = channel < C, output < N
    tl.store(partial + channel, tl.sum(total, axis=0), mask=is_channel)
    tl.store(partial + C + channel, tl.sum(products, axis=0), mask=is_channel)
    at = partial + 2 * C + output[:, None] * C + channel[None, :]
    tl.store(at, grad_head, mask=is_output[:, None] & is_channel[None, :])
    tl.store(partial + 2 * C + N * C + output, tl.sum(grad_bias, axis=0), mask=is_output)


@triton.jit
def _head_backward_kernel(  # type: ignore[no-untyped-def]
    z,
    statistics,
    weight,
    bias,
    head,
    grad,
    sums,
    grad_z,
    part,  # 1 / number of values of a channel; 0 for fixed statistics
    pixels,
    C,
    N,
    P: tl.constexpr,
    K: tl.constexpr,
    OUT: tl.constexpr,
):
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    channel, output = tl.arange(0, K), tl.arange(0, OUT)
    is_channel = channel < C
    affine = load_affine(statistics, weight, bias, channel, C)
    matrix = _load_head(head, output, channel, C, N, z.dtype.element_ty)
    total = tl.load(sums + channel, mask=is_channel, other=0.0)[None, :] * part
    products = tl.load(sums + C + channel, mask=is_channel, other=0.0)[None, :] * part
    x, y = _load(z, affine, pixel, channel, pixels, C)
    above = _load_outputs(grad, pixel, output, pixels, N)
    g = tl.where(y > 0, tl.dot(above, matrix, input_precision="ieee"), 0.0)
    value = (affine[1] * affine[2] * (g - total - x * products)).to(grad_z.dtype.element_ty)
    at = grad_z + pixel.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(at, value, mask=(pixel < pixels)[:, None] & is_channel[None, :])
