"""What lies between two levels of a U-Net, on a GPU, in one pass over memory each.

On the way down a level's answer is needed twice, halved by the next level, and as it is on the way
up beside what comes from below. Here it goes at once to its place in the array that is asked then,
and the transposed convolution writes its answer, bias added, beside it: nothing is put together
later. For batches of 64 at a quarter on an H200 torch's own pooling (which keeps where each maximum
was), transposed convolution, addition and concatenation take 7.5 of 16.9 ms of network and masks.

Arrays are channels-last in half precision; sums are made in float32. See `kernels.triton_for` for
who calls this.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

BLOCK = 1024  # values of a halved picture that one program makes
PLACES, COLUMNS, DEPTH = 128, 128, 64  # of a matrix product that one program makes, at most


def pool_into(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a level's answer with room for as many channels behind, and halved by 2 x 2 maxima.

    Args:
        x: [B, C, H, W] on a GPU, H and W even; a picture has less than 2^25 pixels and 2^30
            values.

    Returns:
        [B, 2 C, H, W], whose last C channels are not set, and [B, C, H / 2, W / 2].
    """
    count, channels, height, width = x.shape
    h, w = height // 2, width // 2
    x = x.contiguous(memory_format=torch.channels_last)
    kept = _empty(x, count, 2 * channels, height, width)
    small = _empty(x, count, channels, h, w)
    grid = (triton.cdiv(h * w * channels, BLOCK), count)
    with torch.cuda.device_of(x):
        _halve[grid](x, kept, small, h, w, channels, BLOCK)
    return kept, small


def upconv_into(kept: Tensor, coarse: Tensor, enlarge: nn.ConvTranspose2d) -> Tensor:
    """Return `kept` with its last C channels set: ``enlarge(coarse)``.

    Args:
        kept: [B, 2 C, H, W], of `halve`; it is changed.
        coarse: [B, K, H / 2, W / 2].
        enlarge: from K to C channels, 2 x 2 with a stride of 2.
    """
    count, inner, h, w = coarse.shape
    channels = kept.shape[1] // 2
    coarse = coarse.contiguous(memory_format=torch.channels_last)
    # Each place of the coarse grid by one matrix: its 2 x 2 pixels, C channels each.
    weight = enlarge.weight.permute(0, 2, 3, 1).reshape(inner, 4 * channels)
    columns = min(COLUMNS, triton.next_power_of_2(4 * channels))
    depth = min(DEPTH, max(16, triton.next_power_of_2(inner)))
    grid = (triton.cdiv(4 * channels, columns), triton.cdiv(h * w, PLACES), count)
    with torch.cuda.device_of(kept):
        _join[grid](
            coarse,
            weight,
            enlarge.bias,
            kept,
            h,
            w,
            inner,
            channels,
            PLACES,
            columns,
            depth,
            num_warps=8,
        )
    return kept


def self_test(device: torch.device) -> None:
    """Run both once, with tiles as large as any: what cannot be done here cannot be later."""
    for dtype in (torch.float16, torch.bfloat16):
        kept, _ = pool_into(torch.zeros(1, 64, 2, 2, dtype=dtype, device=device))
        coarse = torch.zeros(1, 128, 1, 1, dtype=dtype, device=device)
        upconv_into(kept, coarse, nn.ConvTranspose2d(128, 64, 2, 2, device=device, dtype=dtype))


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


@triton.jit
def _halve(x, kept, small, h, w, C: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    picture = tl.program_id(1).to(tl.int64) * h * w * C
    inside = at < h * w * C
    channel, place = at % C, at // C
    row, column = place // w, place % w
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            pixel = (2 * row + down) * 2 * w + 2 * column + right
            value = tl.load(x + 4 * picture + pixel * C + channel, mask=inside)
            tl.store(kept + 8 * picture + pixel * 2 * C + channel, value, mask=inside)
            # An answer that half precision could not hold must not look like one.
            most = tl.maximum(most, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    tl.store(small + picture + at, most.to(small.dtype.element_ty), mask=inside)


@triton.jit
def _join(  # type: ignore[no-untyped-def]
    coarse,
    weight,
    bias,
    kept,
    h,
    w,
    K: tl.constexpr,
    C: tl.constexpr,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)  # (down, right, channel)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    picture = tl.program_id(2).to(tl.int64) * h * w
    there, wanted = (place < h * w)[:, None], (column < 4 * C)[None, :]
    total = tl.zeros([PLACES, COLUMNS], tl.float32)
    for first in range(0, K, DEPTH):
        inner = first + tl.arange(0, DEPTH)
        left = coarse + picture * K + place[:, None] * K + inner[None, :]
        right = weight + inner[:, None] * 4 * C + column[None, :]
        left = tl.load(left, mask=there & (inner < K)[None, :], other=0.0)
        right = tl.load(right, mask=wanted & (inner < K)[:, None], other=0.0)
        total = tl.dot(left, right, total)
    channel, pixel = column % C, column // C
    total += tl.load(bias + channel, mask=column < 4 * C, other=0.0).to(tl.float32)[None, :]
    y = 2 * (place // w)[:, None] + (pixel // 2)[None, :]
    x = 2 * (place % w)[:, None] + (pixel % 2)[None, :]
    target = kept + picture * 8 * C + (y * 2 * w + x) * 2 * C + (C + channel)[None, :]
    tl.store(target, total.to(kept.dtype.element_ty), mask=there & wanted)
