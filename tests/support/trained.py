"""Networks whose normalization layers look trained."""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def randomize_norms(module: Module) -> Module:
    """Draw weights and statistics of all batch normalizations; return the module."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.2)
            nn.init.normal_(layer.bias, 0, 0.3)
            assert isinstance(layer.running_mean, torch.Tensor)
            assert isinstance(layer.running_var, torch.Tensor)
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return module
