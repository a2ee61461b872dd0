"""Passes over full-size images on the device that holds them, with the same bits on every device.

On a GPU memory bandwidth is the limit: `mask_kernels_triton` does in one pass what takes torch
several. The torch versions here run where Triton does not.
"""

import functools
import importlib
import logging
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from carvana_ray import images

TRITON = "carvana_ray.inference.mask_kernels_triton"

log = logging.getLogger(__name__)


@torch.inference_mode()
def enlarge(soft_masks: Tensor, height: int, width: int) -> Tensor:
    """Return `images.enlarge` of soft masks, uint8 [B, h, w] to bool [B, H, W], on their device."""
    h, w = soft_masks.shape[-2:]
    downscale = images.infer_downscale(height, width, h, w)
    smooth = F.interpolate(
        soft_masks[:, None].float(),
        size=(h * downscale, w * downscale),
        mode="bilinear",
        align_corners=False,
    )
    return smooth[:, 0, :height, :width] > 127.5


@torch.inference_mode()
def run_boundaries(soft_masks: Tensor, height: int, width: int) -> Tensor:
    """Return where the runs of the masks, `images.enlarge` of soft masks, start and end.

    Args:
        soft_masks: uint8 [B, h, w].
        height, width: H and W of the masks.

    Returns:
        bool [B, H * W + 1]: whether a pixel differs from the one before it in row order. The pixels
        before the first and after the last count as background.
    """
    if kernels := load_triton(soft_masks.device, TRITON):
        return kernels.run_boundaries(soft_masks, height, width)
    flat = enlarge(soft_masks, height, width).flatten(1)
    boundaries = torch.zeros(len(flat), height * width + 1, dtype=torch.bool, device=flat.device)
    boundaries[:, 0] = flat[:, 0]
    boundaries[:, -1] = flat[:, -1]
    torch.ne(flat[:, 1:], flat[:, :-1], out=boundaries[:, 1:-1])
    return boundaries


@torch.inference_mode()
def block_means(rgb: Tensor, downscale: int) -> Tensor:
    """Return the mean of red, green and blue over blocks of downscale x downscale pixels.

    Args:
        rgb: uint8 [B, 3, H, W].
        downscale: one of `images.DOWNSCALES`.

    Returns:
        uint8 [B, h, w], rounded to the nearest, halves up. A block that the right or bottom border
        cuts has the mean of its pixels inside.
    """
    if kernels := load_triton(rgb.device, TRITON):
        return kernels.block_means(rgb, downscale)
    height, width = rgb.shape[-2:]
    channel_sum = rgb.to(torch.int32).sum(1, keepdim=True).float()  # up to 765 * 64: exact
    total = F.avg_pool2d(channel_sum, downscale, ceil_mode=True, divisor_override=1)[:, 0].int()
    rows, columns = (_block_lengths(length, downscale, rgb.device) for length in (height, width))
    values = 3 * rows[:, None] * columns
    return ((2 * total + values) // (2 * values)).to(torch.uint8)


def _block_lengths(length: int, downscale: int, device: torch.device) -> Tensor:
    """Return the number of pixels of each block along an axis: int32 [ceil(length / downscale)]."""
    first = torch.arange(0, length, downscale, dtype=torch.int32, device=device)
    return (length - first).clamp(max=downscale)


@functools.cache
def load_triton(device: torch.device, name: str) -> ModuleType | None:
    """Return a module of Triton kernels, or None if they do not run on the device.

    Args:
        name: full name of the module; its ``self_test(device)`` runs each kernel once.
    """
    if device.type != "cuda":
        return None
    try:
        module = importlib.import_module(name)
        module.self_test(device)
    except Exception as error:  # Triton compiles for this GPU, which may raise any error
        log.warning(
            "%s does not run here, so the GPU is slower; it needs Triton and a C compiler: %s: %s",
            name.rpartition(".")[2],
            type(error).__name__,
            error,
        )
        return None
    return module
