"""The passes of `fused_input` on a GPU: moved pixels in folded order, then their standardization.

The first pass moves each pixel as `images.warp.apply_affine` does and stores its level in 16 bits,
in the memory of the result, to 1/512 of a level. It also sums up moments: those of tiles, combined
in a fixed order, so the same batch gives the same bits. The second pass standardizes in place.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from carvana_ray.training.fused_input import MIN_CHANNELS

VALUES = 1024  # pixels of an image that one program moves
STORED = 2048  # values that one program standardizes
WARPS = 4


def fold_images(
    image: Tensor,
    soft_mask: Tensor,
    matrix: Tensor | None,
    raw: bool,
    fold: int,
    cells: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return ``x`` and ``target`` of `fused_input.FoldedBatch`.

    Args:
        image: uint8 or float32 [B, H, W].
        soft_mask: uint8 [B, H, W].
        matrix: float32 [B, 2, 3], see `images.warp.apply_affine`; None moves nothing.
        raw: standardize the images, uint8, each by the moments of its moved pixels.
        fold: side of a block in pixels, a power of 2.
        cells: height and width of the folded images.
    """
    count, height, width = image.shape
    image, soft_mask = image.contiguous(), soft_mask.contiguous()
    channels = max(fold**2, MIN_CHANNELS)
    x = _empty(image, torch.int16 if raw else torch.float16, count, channels, *cells)
    target = _empty(image, torch.uint8, count, fold**2, *cells)
    columns = VALUES // fold
    tiles = triton.cdiv(cells[0] * cells[1] * fold, columns)
    partial = torch.empty(count, 3, tiles, dtype=torch.float32, device=image.device)
    move = matrix is not None
    affine = matrix.contiguous() if matrix is not None else partial
    with torch.cuda.device_of(image):
        _fold_kernel[(tiles, count)](
            image, soft_mask, affine, partial, x, target,
            height, width, *cells, fold, channels, move, raw, columns,
            num_warps=WARPS,
        )  # fmt: skip
        return (_standardize(x, partial, fold) if raw else x), target


def _standardize(levels: Tensor, partial: Tensor, fold: int) -> Tensor:
    """Return standardized images, float16, in the memory of levels that `_fold_kernel` stored."""
    count, channels, h, w = levels.shape
    tiles = partial.shape[2]
    moments = partial.new_empty(count, 2)
    _moments_kernel[(count,)](partial, moments, tiles, triton.next_power_of_2(tiles))
    x = levels.view(torch.float16)
    grid = (triton.cdiv(channels * h * w, STORED), count)
    _standardize_kernel[grid](levels, moments, x, channels * h * w, channels, fold, STORED)
    return x


def self_test(device: torch.device) -> None:
    """Run all kernels once, so that an error, such as no C compiler, comes early."""
    blank = torch.zeros(1, 16, 16, dtype=torch.uint8, device=device)
    fold_images(blank, blank, torch.eye(2, 3, device=device)[None], True, 4, (4, 4))


def _empty(like: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


@triton.jit
def _floor(at):  # type: ignore[no-untyped-def]
    """Return the whole number below, as float32 and as int32; for a whole one that or one less.

    A sum of this size has no fraction, so it is rounded. Conversions take 8 times as long.
    """
    shifted = at - 0.5 + 12582912.0
    return shifted - 12582912.0, shifted.to(tl.int32, bitcast=True) - 0x4B400000


@triton.jit
def _level(pointer):  # type: ignore[no-untyped-def]
    """Return uint8 levels as float32, also without a conversion: the lowest bits of 2^23."""
    bits = tl.load(pointer).to(tl.int32) | 0x4B000000
    return bits.to(tl.float32, bitcast=True) - 8388608.0


@triton.jit
def _reflect(at, size):  # type: ignore[no-untyped-def]
    """Return a position mirrored at the outer edges of the first and last pixel, then clipped."""
    at += 0.5
    turns, _ = _floor(at * (0.5 / size))
    at -= turns * (2 * size)
    at = tl.minimum(at, 2 * size - at) - 0.5
    return tl.minimum(tl.maximum(at, 0.0), size - 1.0)


@triton.jit
def _origin(affine, y, x, H: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the row and column, float32, that pixels (y, x), float32, come from.

    These are the formulas of `affine_grid` and `grid_sample`, in pixels from the center.
    """
    y -= (H - 1) / 2
    x -= (W - 1) / 2
    column = tl.load(affine) * x + (tl.load(affine + 1) * (W / H) * y + tl.load(affine + 2) * W / 2)
    row = tl.load(affine + 4) * y + (
        tl.load(affine + 3) * (H / W) * x + tl.load(affine + 5) * H / 2
    )
    return _reflect(row + (H - 1) / 2, H), _reflect(column + (W - 1) / 2, W)


@triton.jit
def _sample(plane, row, column, H: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return levels, float32, interpolated between the four pixels around a position."""
    top, first = _floor(row)
    left, near = _floor(column)
    down, right = row - top, column - left
    second, far = tl.minimum(first + 1, H - 1) * W, tl.minimum(near + 1, W - 1)
    first *= W
    a, b = _level(plane + first + near), _level(plane + first + far)
    upper = a + (b - a) * right
    a, b = _level(plane + second + near), _level(plane + second + far)
    return upper + (a + (b - a) * right - upper) * down


@triton.jit
def _fold_kernel(  # type: ignore[no-untyped-def]
    image,
    soft_mask,
    affine,
    partial,
    x,
    target,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    F: tl.constexpr,
    P: tl.constexpr,
    MOVE: tl.constexpr,
    RAW: tl.constexpr,
    N: tl.constexpr,
):
    """Fold N columns of F rows, which are N / F cells; threads read along rows of the image."""
    index, first = tl.program_id(1), tl.program_id(0) * N
    at, down = first + tl.arange(0, N)[None, :], tl.arange(0, F)[:, None]
    y, across = at // (w * F) * F + down, at % (w * F)
    real = (y < H) & ((across < W) & (at < h * w * F))
    y, across = tl.minimum(y, H - 1), tl.minimum(across, W - 1)
    image += index.to(tl.int64) * H * W
    soft_mask += index.to(tl.int64) * H * W
    if MOVE:
        row, column = _origin(affine + index * 6, y.to(tl.float32), across.to(tl.float32), H, W)
        level = _sample(image, row, column, H, W)
        mask_level = tl.ceil(_sample(soft_mask, row, column, H, W) - 0.5)
    else:
        level = tl.load(image + y * W + across).to(tl.float32)
        mask_level = tl.load(soft_mask + y * W + across)
    if RAW:
        tiles = tl.num_programs(0)
        _store_moments(partial + index * 3 * tiles + tl.program_id(0), tiles, level, real)
        _, level = _floor((level - 128.0) * 256.0 + 0.5)
    x += index.to(tl.int64) * h * w * P
    target += index.to(tl.int64) * h * w * F * F
    _store_cells(x, level.to(x.dtype.element_ty), first // F, h * w, F, P)
    _store_cells(target, mask_level.to(tl.uint8), first // F, h * w, F, F * F)


@triton.jit
def _store_moments(partial, stride, level, real):  # type: ignore[no-untyped-def]
    """Store number, mean, and sum of squared deviations of the real levels of a tile."""
    count = tl.sum(real.to(tl.float32))
    mean = tl.sum(tl.where(real, level, 0.0)) / tl.maximum(count, 1.0)
    deviation = tl.where(real, level - mean, 0.0)
    tl.store(partial, count)
    tl.store(partial + stride, mean)
    tl.store(partial + 2 * stride, tl.sum(deviation * deviation))


@triton.jit
def _store_cells(folded, values, first, cells, F: tl.constexpr, P: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store values [F, N] as cells of P channels, those from F^2 on as zeros."""
    N: tl.constexpr = values.shape[1]
    values = tl.reshape(values, (F, N // F, F)).permute(1, 0, 2).reshape(N // F, 1, F * F)
    values = tl.where(tl.arange(0, P // (F * F))[None, :, None] == 0, values, 0)
    at = first * P + tl.arange(0, N // F * P)
    tl.store(folded + at, values.reshape(N // F * P), mask=at < cells * P)


@triton.jit
def _moments_kernel(partial, moments, tiles, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Combine the moments of tiles (Chan, Golub and LeVeque 1979): mean, 1 / sqrt(variance + 1)."""
    index, tile = tl.program_id(0), tl.arange(0, BLOCK)
    partial += index * 3 * tiles + tile
    count = tl.load(partial, mask=tile < tiles, other=0.0)
    means = tl.load(partial + tiles, mask=tile < tiles, other=0.0)
    squares = tl.load(partial + 2 * tiles, mask=tile < tiles, other=0.0)
    pixels = tl.sum(count)
    mean = tl.sum(count * means) / pixels
    variance = tl.sum(squares + count * (means - mean) * (means - mean)) / pixels
    tl.store(moments + index * 2, mean)
    tl.store(moments + index * 2 + 1, 1.0 / tl.sqrt(variance + 1.0))


@triton.jit
def _standardize_kernel(  # type: ignore[no-untyped-def]
    levels, moments, x, size, P: tl.constexpr, F: tl.constexpr, N: tl.constexpr
):
    index, at = tl.program_id(1), tl.program_id(0) * N + tl.arange(0, N)
    first = index.to(tl.int64) * size
    level = tl.load(levels + first + at, mask=at < size).to(tl.float32) * (1 / 256) + 128.0
    value = (level - tl.load(moments + index * 2)) * tl.load(moments + index * 2 + 1)
    value = tl.where(at % P < F * F, value, 0.0).to(tl.float16)
    tl.store(x + first + at, value, mask=at < size)
