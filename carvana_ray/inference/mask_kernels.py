"""Passes over full-size pictures on the device where they lie, to the bit the same on all.

On a GPU they are bound by memory, and torch's own operations pass over it several times: there
`kernels_triton` does the same in one. Where Triton does not run, it is these, and slower.
"""

import functools
import importlib
import logging
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from carvana_ray import images

log = logging.getLogger(__name__)


@torch.inference_mode()
def enlarge(share: Tensor, height: int, width: int) -> Tensor:
    """Return `images.enlarge` of uint8 [B, h, w] on the tensor's own device: bool [B, H, W]."""
    h, w = share.shape[-2:]
    times = images.infer_downscale(height, width, h, w)
    smooth = F.interpolate(
        share[:, None].float(), size=(h * times, w * times), mode="bilinear", align_corners=False
    )
    return smooth[:, 0, :height, :width] > 127.5


@torch.inference_mode()
def run_boundaries(share: Tensor, height: int, width: int) -> Tensor:
    """Return where a run of a mask starts or ends.

    Args:
        share: of car, uint8 [B, h, w].
        height, width: H and W of the masks, `images.enlarge` of the shares.

    Returns:
        bool [B, H * W + 1]: a pixel that differs from the one before it in row order, car before
        the first and after the last counting as none.
    """
    if fast := load_triton(share.device, "mask_kernels_triton"):
        return fast.run_boundaries(share, height, width)
    return run_boundaries_torch(share, height, width)


def run_boundaries_torch(share: Tensor, height: int, width: int) -> Tensor:
    """Return `edges`, by torch alone."""
    flat = enlarge(share, height, width).flatten(1)
    found = torch.zeros(len(flat), height * width + 1, dtype=torch.bool, device=flat.device)
    found[:, 0] = flat[:, 0]
    found[:, -1] = flat[:, -1]
    torch.ne(flat[:, 1:], flat[:, :-1], out=found[:, 1:-1])
    return found


@torch.inference_mode()
def block_means(rgb: Tensor, downscale: int) -> Tensor:
    """Return the mean of red, green and blue over blocks of downscale x downscale pixels.

    Args:
        rgb: uint8 [B, 3, H, W].
        downscale: one of `images.DOWNSCALES`.

    Returns:
        uint8 [B, h, w], rounded to the nearest, halves up. At the right and below, where a block is
        cut by the border, of what there is of it.
    """
    if fast := load_triton(rgb.device, "mask_kernels_triton"):
        return fast.block_means(rgb, downscale)
    return block_means_torch(rgb, downscale)


def block_means_torch(rgb: Tensor, downscale: int) -> Tensor:
    """Return `mean_of_blocks`, by torch alone."""
    height, width = rgb.shape[-2:]
    levels = rgb.to(torch.int32).sum(1, keepdim=True).float()  # up to 765 * 64: exact
    total = F.avg_pool2d(levels, downscale, ceil_mode=True, divisor_override=1)[:, 0].int()
    tall, wide = (_extents(length, downscale, rgb.device) for length in (height, width))
    values = 3 * tall[:, None] * wide
    return ((2 * total + values) // (2 * values)).to(torch.uint8)


def _extents(length: int, downscale: int, device: torch.device) -> Tensor:
    """Return how many pixels each block has along an axis: int32 [ceil(length / downscale)]."""
    first = torch.arange(0, length, downscale, dtype=torch.int32, device=device)
    return (length - first).clamp(max=downscale)


@functools.cache
def load_triton(device: torch.device, name: str) -> ModuleType | None:
    """Return a module of kernels, ``kernels_triton`` say, where it runs on a device, or None."""
    if device.type != "cuda":
        return None
    try:
        found = importlib.import_module(f"carvana_ray.inference.{name}")
        found.self_test(device)
    except Exception as error:  # Triton compiles for whatever GPU this is: no list of what may fail
        log.warning("no %s, slower: %s: %s", name, type(error).__name__, error)
        return None
    return found
