"""An encoder rewritten for fixed weights and statistics: the same function in fewer passes.

Batch normalization is folded into the convolution before it. On a GPU `lite_kernels_triton` adds
the bias of a depthwise convolution and of the convolution before it, and applies ReLU6 to both,
within the depthwise convolution.
"""

import copy

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from carvana_ray.inference import mask_kernels
from carvana_ray.unet.lite import Block, Lite0, Unit

TRITON = "carvana_ray.inference.lite_kernels_triton"


class FusedLite(Lite0):
    """A copy of an encoder that computes the same in evaluation mode."""

    def __init__(self, encoder: Lite0) -> None:
        nn.Module.__init__(self)  # not Lite0's: the layers are those of the encoder
        self.halves, self.stem = encoder.halves, _fuse_unit(encoder.stem)
        self.blocks = nn.ModuleList(
            FusedBlock(block) for block in encoder.blocks if isinstance(block, Block)
        )
        self.norms = copy.deepcopy(encoder.norms)
        self.eval().requires_grad_(False)


class FusedBlock(Block):
    """A copy of a block that computes the same in evaluation mode."""

    def __init__(self, block: Block) -> None:
        nn.Module.__init__(self)
        self.expand = None if block.expand is None else _fuse_unit(block.expand)
        self.depthwise, self.project = _fuse_unit(block.depthwise), _fuse_unit(block.project)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return what `Block.forward` returns."""
        kernels = mask_kernels.load_triton(x.device, TRITON)
        if not kernels:
            return super().forward(x)
        inner, bias = x, None
        if self.expand is not None:
            inner, bias = F.conv2d(x, self.expand.conv.weight), self.expand.conv.bias
        y = self.project(kernels.depthwise_relu6(inner, bias, self.depthwise.conv))
        return x + y if self.residual else y


def _fuse_unit(unit: Unit) -> Unit:
    unit = copy.deepcopy(unit).eval()
    assert isinstance(unit.norm, nn.BatchNorm2d)
    unit.conv, unit.norm = fuse_conv_bn_eval(unit.conv, unit.norm), nn.Identity()
    return unit
