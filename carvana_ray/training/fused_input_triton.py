"""The passes of `fused_input` on a GPU: moments of the moved images, then their folded pixels.

A pixel is moved as `images.warp.apply_affine` moves it, and computed anew in each pass, since its
levels are 1 byte to read and its float32 value is 4 to write. Sums are those of tiles, combined in
a fixed order, so the same batch gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from carvana_ray.training.fused_input import MIN_CHANNELS

PIXELS = 2048  # of an image whose moments one program computes
VALUES = 2048  # of a folded image that one program writes
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
        raw: standardize the images, each by the moments of its moved pixels.
        fold: side of a block in pixels, a power of 2.
        cells: height and width of the folded images.
    """
    count, height, width = image.shape
    image, soft_mask = image.contiguous(), soft_mask.contiguous()
    channels = max(fold**2, MIN_CHANNELS)
    x = _empty(image, torch.float16, count, channels, *cells)
    target = _empty(image, torch.uint8, count, fold**2, *cells)
    move = matrix is not None
    affine = matrix.contiguous() if matrix is not None else image
    with torch.cuda.device_of(image):
        moments = _moments(image, affine, move) if raw else image
        grid = (triton.cdiv(cells[0] * cells[1] * fold, VALUES // fold), count)
        _fold_kernel[grid](
            image, soft_mask, affine, moments, x, target,
            height, width, *cells, fold, channels, move, raw, VALUES // fold,
            num_warps=WARPS,
        )  # fmt: skip
    return x, target


def _moments(image: Tensor, affine: Tensor, move: bool) -> Tensor:
    """Return mean and 1 / sqrt(variance + 1) of each moved image: float32 [B, 2]."""
    count, height, width = image.shape
    tiles = triton.cdiv(height * width, PIXELS)
    partial = torch.empty(count, 2, tiles, dtype=torch.float32, device=image.device)
    moments = torch.empty(count, 2, dtype=torch.float32, device=image.device)
    _tile_moments_kernel[(tiles, count)](
        image, affine, partial, height, width, move, PIXELS, num_warps=WARPS
    )
    block = triton.next_power_of_2(tiles)
    _moments_kernel[(count,)](partial, moments, height * width, tiles, PIXELS, block)
    return moments


def self_test(device: torch.device) -> None:
    """Run all kernels once, so that an error, such as no C compiler, comes early."""
    blank = torch.zeros(1, 16, 16, dtype=torch.uint8, device=device)
    fold_images(blank, blank, torch.eye(2, 3, device=device)[None], True, 4, (4, 4))


def _empty(like: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


@triton.jit
def _reflect(at, size):  # type: ignore[no-untyped-def]
    """Return a position mirrored at the outer edges of the first and last pixel, then clipped."""
    at = tl.abs(at + 0.5)
    turns = tl.floor(at / size)
    at -= turns * size
    at = tl.where(turns.to(tl.int32) % 2 == 1, size - at, at) - 0.5
    return tl.minimum(tl.maximum(at, 0.0), size - 1.0)


@triton.jit
def _origin(affine, y, x, H: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the row and column, float32, that pixels (y, x) come from."""
    u, v = (2 * x + 1).to(tl.float32) / W - 1.0, (2 * y + 1).to(tl.float32) / H - 1.0
    right = tl.load(affine) * u + tl.load(affine + 1) * v + tl.load(affine + 2)
    down = tl.load(affine + 3) * u + tl.load(affine + 4) * v + tl.load(affine + 5)
    row, column = ((down + 1.0) * H - 1.0) / 2, ((right + 1.0) * W - 1.0) / 2
    return _reflect(row, H), _reflect(column, W)


@triton.jit
def _sample(plane, row, column, keep, H: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return levels, float32, interpolated between the four pixels around a position."""
    top, left = tl.floor(row), tl.floor(column)
    down, right = row - top, column - left
    first, near = top.to(tl.int32), left.to(tl.int32)
    second, far = tl.minimum(first + 1, H - 1) * W, tl.minimum(near + 1, W - 1)
    first *= W
    a = tl.load(plane + first + near, mask=keep, other=0).to(tl.float32)
    b = tl.load(plane + first + far, mask=keep, other=0).to(tl.float32)
    upper = a + (b - a) * right
    a = tl.load(plane + second + near, mask=keep, other=0).to(tl.float32)
    b = tl.load(plane + second + far, mask=keep, other=0).to(tl.float32)
    return upper + (a + (b - a) * right - upper) * down


@triton.jit
def _tile_moments_kernel(  # type: ignore[no-untyped-def]
    image, affine, partial, H: tl.constexpr, W: tl.constexpr, MOVE: tl.constexpr, N: tl.constexpr
):
    tile, index = tl.program_id(0), tl.program_id(1)
    image += index.to(tl.int64) * H * W
    at = tile * N + tl.arange(0, N)
    inside = at < H * W
    if MOVE:
        row, column = _origin(affine + index * 6, at // W, at % W, H, W)
        level = _sample(image, row, column, inside, H, W)
    else:
        level = tl.load(image + at, mask=inside, other=0).to(tl.float32)
    mean = tl.sum(tl.where(inside, level, 0.0)) / tl.minimum(N, H * W - tile * N)
    deviation = tl.where(inside, level - mean, 0.0)
    partial += index * 2 * tl.num_programs(0) + tile
    tl.store(partial, mean)
    tl.store(partial + tl.num_programs(0), tl.sum(deviation * deviation))


@triton.jit
def _moments_kernel(partial, moments, pixels, tiles, N: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Combine the moments of tiles, after Chan, Golub and LeVeque 1979."""
    index, tile = tl.program_id(0), tl.arange(0, BLOCK)
    partial += index * 2 * tiles + tile
    count = tl.where(tile < tiles, tl.minimum(N, pixels - tile * N), 0).to(tl.float32)
    means = tl.load(partial, mask=tile < tiles, other=0.0)
    squares = tl.load(partial + tiles, mask=tile < tiles, other=0.0)
    mean = tl.sum(count * means) / pixels
    variance = tl.sum(squares + count * (means - mean) * (means - mean)) / pixels
    tl.store(moments + index * 2, mean)
    tl.store(moments + index * 2 + 1, 1.0 / tl.sqrt(variance + 1.0))


@triton.jit
def _fold_kernel(  # type: ignore[no-untyped-def]
    image,
    soft_mask,
    affine,
    moments,
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
    keep = (at + 0 * down) < h * w * F
    row = tl.minimum(at // (w * F) * F + down, H - 1)
    column = tl.minimum(at % (w * F) + 0 * down, W - 1)
    image += index.to(tl.int64) * H * W
    soft_mask += index.to(tl.int64) * H * W
    if MOVE:
        row, column = _origin(affine + index * 6, row, column, H, W)
        level = _sample(image, row, column, keep, H, W)
        mask_level = tl.ceil(_sample(soft_mask, row, column, keep, H, W) - 0.5)
    else:
        level = tl.load(image + row * W + column, mask=keep, other=0).to(tl.float32)
        mask_level = tl.load(soft_mask + row * W + column, mask=keep, other=0)
    if RAW:
        level = (level - tl.load(moments + index * 2)) * tl.load(moments + index * 2 + 1)
    x += index.to(tl.int64) * h * w * P
    target += index.to(tl.int64) * h * w * F * F
    _store_cells(x, level.to(tl.float16), first // F, h * w, F, P)
    _store_cells(target, mask_level.to(tl.uint8), first // F, h * w, F, F * F)


@triton.jit
def _store_cells(folded, values, first, cells, F: tl.constexpr, P: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store values [F, N] as cells of P channels, those from F^2 on as zeros."""
    N: tl.constexpr = values.shape[1]
    values = tl.reshape(values, (F, N // F, F)).permute(1, 0, 2).reshape(N // F, 1, F * F)
    values = tl.where(tl.arange(0, P // (F * F))[None, :, None] == 0, values, 0)
    at = first * P + tl.arange(0, N // F * P)
    tl.store(folded + at, values.reshape(N // F * P), mask=at < cells * P)
