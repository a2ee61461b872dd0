"""A depthwise convolution on a GPU with the biases and ReLU6 before and after it: one pass.

Arrays are channels-last, in half precision as a rule; sums are float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

VALUES = 512  # groups of four values of a map that a program computes


def depthwise_relu6(x: Tensor, before: Tensor | None, conv: nn.Conv2d) -> Tensor:
    """Return ``relu6(conv(relu6(x + before)))``, or ``relu6(conv(x))`` without `before`.

    Args:
        x: [B, C, H, W]; without `before` from 0 to 6. An image has less than 2^31 values.
        before: [C].
        conv: depthwise, with "same" padding and a bias.
    """
    count, channels, height, width = x.shape
    side, stride = conv.kernel_size[0], conv.stride[0]
    h, w = (height - 1) // stride + 1, (width - 1) // stride + 1
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        (count, channels, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    weight = conv.weight.reshape(channels, side**2).T.contiguous()
    columns = 64 if channels % 64 == 0 else min(32, triton.next_power_of_2(channels))
    rows = VALUES // columns
    grid = (triton.cdiv(h * triton.cdiv(w, 4), rows), triton.cdiv(channels, columns), count)
    with torch.cuda.device_of(x):
        _depthwise_kernel[grid](
            x,
            before,
            weight,
            conv.bias,
            y,
            height,
            width,
            h,
            w,
            channels,
            side,
            stride,
            rows,
            columns,
        )
    return y


def self_test(device: torch.device) -> None:
    """Run the kernel once for each of its forms, so that an error comes early."""
    x = torch.zeros(1, 32, 4, 4, dtype=torch.float16, device=device)
    for side, stride in ((3, 1), (3, 2), (5, 1), (5, 2)):
        conv = nn.Conv2d(32, 32, side, stride, side // 2, groups=32, device=device, dtype=x.dtype)
        depthwise_relu6(x, None if side == 3 else x[0, :, 0, 0].contiguous(), conv)


@triton.jit
def _relu6(value):  # type: ignore[no-untyped-def]
    """Return values clipped to 0..6. NaN stays: `Predictor` recomputes non-finite images."""
    zero = tl.full(value.shape, 0, value.dtype)
    value = tl.maximum(value, zero, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(value, zero + 6, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _depthwise_kernel(  # type: ignore[no-untyped-def]
    x,
    before,
    weight,
    bias,
    y,
    H,
    W,
    h,
    w,
    C,
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    G: tl.constexpr,
    K: tl.constexpr,
):
    """Compute G groups of four neighbors in a row: a value is loaded and clipped once for all."""
    group = tl.program_id(0) * G + tl.arange(0, G)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    is_channel = (channel < C)[None, :]
    x += tl.program_id(2).to(tl.int64) * H * W * C
    y += tl.program_id(2).to(tl.int64) * h * w * C
    groups = tl.cdiv(w, 4)  # of a row
    row, column = group // groups, group % groups * 4
    if before is not None:
        shift = tl.load(before + channel[None, :], mask=is_channel, other=0.0)
    total0 = tl.zeros([G, K], tl.float32)
    total1 = tl.zeros([G, K], tl.float32)
    total2 = tl.zeros([G, K], tl.float32)
    total3 = tl.zeros([G, K], tl.float32)
    for down in tl.static_range(SIDE):
        from_row = row * STRIDE - SIDE // 2 + down
        in_row = (row < h) & (from_row >= 0) & (from_row < H)
        taps = weight + down * SIDE * C + channel[None, :]
        for right in tl.static_range(3 * STRIDE + SIDE):
            from_column = column * STRIDE - SIDE // 2 + right
            inside = (in_row & (from_column >= 0) & (from_column < W))[:, None] & is_channel
            at = (from_row * W + from_column)[:, None] * C + channel[None, :]
            if before is not None:  # beyond the map ReLU6 gives 0
                value = tl.load(x + at, mask=inside, other=float("-inf"))
                value = _relu6(value + shift)
            else:
                value = tl.load(x + at, mask=inside, other=0.0)
            value = value.to(tl.float32)
            total0 = _add_tap(total0, value, taps, right, is_channel, C, SIDE)
            total1 = _add_tap(total1, value, taps, right - STRIDE, is_channel, C, SIDE)
            total2 = _add_tap(total2, value, taps, right - 2 * STRIDE, is_channel, C, SIDE)
            total3 = _add_tap(total3, value, taps, right - 3 * STRIDE, is_channel, C, SIDE)
    shift = tl.load(bias + channel[None, :], mask=is_channel, other=0.0).to(tl.float32)
    y += (row * w + column)[:, None] * C + channel[None, :]
    is_channel = is_channel & (row < h)[:, None]
    column = column[:, None]
    tl.store(y, _relu6(total0 + shift).to(y.dtype.element_ty), mask=is_channel)
    y += C
    tl.store(y, _relu6(total1 + shift).to(y.dtype.element_ty), mask=is_channel & (column + 1 < w))
    y += C
    tl.store(y, _relu6(total2 + shift).to(y.dtype.element_ty), mask=is_channel & (column + 2 < w))
    y += C
    tl.store(y, _relu6(total3 + shift).to(y.dtype.element_ty), mask=is_channel & (column + 3 < w))


@triton.jit
def _add_tap(total, value, taps, tap: tl.constexpr, is_channel, C, SIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the total plus a value times a tap of its row, if there is such a tap."""
    if tap >= 0 and tap < SIDE:
        weight = tl.load(taps + tap * C, mask=is_channel, other=0.0)
        return total + value * weight.to(tl.float32)
    else:  # noqa: RET505 - Triton would compile these lines for a tap as well
        return total
