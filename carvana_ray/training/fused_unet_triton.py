"""The steps of `fused_unet` on a GPU, in one module.

Triton comes only with torch's CUDA wheels and calls a C compiler, so importing this module may
raise any error.
"""

import torch
from torch import nn

from carvana_ray.inference.unet_kernels_triton import upconv_into
from carvana_ray.training.head_triton import head_backward, head_logits
from carvana_ray.training.normalize_backward_triton import gather_upper, normalize_backward
from carvana_ray.training.normalize_triton import batch_statistics, normalize, normalize_pool

__all__ = [
    "batch_statistics",
    "gather_upper",
    "head_backward",
    "head_logits",
    "normalize",
    "normalize_backward",
    "normalize_pool",
    "upconv_into",
]


def self_test(device: torch.device) -> None:
    """Run each kernel once, so that an error comes early."""
    norm, head = nn.BatchNorm2d(32, device=device), nn.Conv2d(32, 1, 1, device=device)
    blank = torch.zeros(1, 64, 2, 2, dtype=torch.float16, device=device)
    z = blank[:, :32].contiguous(memory_format=torch.channels_last)
    statistics = batch_statistics(z, norm)
    normalize_backward(z, statistics, norm, normalize(z, statistics, norm), None, False)
    buffer, pooled = normalize_pool(z, statistics, norm)
    normalize_backward(z, statistics, norm, buffer, pooled, False)
    head_backward(z, statistics, norm, head, head_logits(z, statistics, norm, head), False)
    gather_upper(buffer)
    weight = blank.expand(32, 64, 2, 2).transpose(0, 1).contiguous()
    upconv_into(buffer, blank[..., :1, :1], weight, weight[0, :, 0, 0].contiguous())
