"""Forward and backward pass of a U-Net with batch normalization in few passes over memory.

`FusedTrainingUNet` computes what `UNet` computes under autocast, to rounding. Convolutions are
cuDNN's; `norm_kernels_triton` does what lies between them. One H100, batches of 8, 320 x 480:
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carvana_ray.inference import mask_kernels
from carvana_ray.unet.network import UNet

TRITON = "carvana_ray.training.norm_kernels_triton"
ALIGN = 8  # output channels: cuDNN is slow with fewer


def fuse(network: UNet, device: torch.device) -> "FusedTrainingUNet | None":
    """Return the fused form of a network, or None where it does not run: use the network itself.

    It runs on a GPU with Triton, for batch normalization. A missing Triton is logged as a warning.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        return None
    kernels = mask_kernels.load_triton(device, TRITON)
    return FusedTrainingUNet(network, kernels) if kernels else None


class FusedTrainingUNet(nn.Module):
    """A network with the parameters and buffers of `network`, which stay where they are.

    Args:
        network: with batch normalization.
        kernels: `norm_kernels_triton`.
    """

    def __init__(self, network: UNet, kernels: ModuleType) -> None:
        super().__init__()
        self.network, self._kernels = network, kernels
        self._norms: list[Any] = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        convolutions = (nn.Conv2d, nn.ConvTranspose2d)
        layers = [layer for layer in network.modules() if isinstance(layer, convolutions)]
        self._first = layers[0]
        self._weights = [value for layer in layers for value in layer.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, P', h, w] in the dtype of x; channels from ``fold ** 2`` on are 0.

        Args:
            x: [B, P, h, w], the folded image; h and w are multiples of ``2 ** (depth - 1)``.
                Channels that the first convolution lacks do not matter.
        """
        network = self.network
        if self._norms[0].training:
            torch._foreach_add_([norm.num_batches_tracked for norm in self._norms], 1)
        cast: dict[Any, Tensor] = dict(
            zip(self._weights, _Cast.apply(x.dtype, *self._weights), strict=True)
        )
        first = self._first.weight
        cast[first] = _pad(cast[first], dim=1, size=x.shape[1])
        x = x.contiguous(memory_format=torch.channels_last)
        buffers = []
        for level in network.down[:-1]:
            buffer, x = self._level(level, x, cast, pool=True)
            buffers.append(buffer)
        x = self._level(network.down[-1], x, cast)
        for enlarge, level in zip(network.enlarge, network.up, strict=True):
            weight, bias = cast[enlarge.weight], cast[enlarge.bias]
            x = self._level(
                level, _Enlarge.apply(self._kernels, buffers.pop(), x, weight, bias), cast
            )
        outputs = -(-network.head.out_channels // ALIGN) * ALIGN
        weight, bias = (_pad(cast[value], 0, outputs) for value in network.head.parameters())
        return F.conv2d(x, weight, bias)

    def _level(
        self, level: nn.Module, x: Tensor, cast: dict[Any, Tensor], pool: bool = False
    ) -> Any:
        """Return the output of a level; with `pool` its buffer and the pooled output."""
        first, norm, _, second, last_norm, _ = level.children()
        z = F.conv2d(x, cast[first.weight], padding=1)
        x = _NormReLU.apply(_Norm(self._kernels, norm, False), z, norm.weight, norm.bias)
        z = F.conv2d(x, cast[second.weight], padding=1)
        step = _Norm(self._kernels, last_norm, pool)
        return _NormReLU.apply(step, z, last_norm.weight, last_norm.bias)


def _pad(value: Tensor, dim: int, size: int) -> Tensor:
    """Return a weight with zeros up to a size along a dimension."""
    if size == value.shape[dim]:
        return value
    missing = (*value.shape[:dim], size - value.shape[dim], *value.shape[dim + 1 :])
    padded = torch.cat([value, value.new_zeros(missing)], dim)
    return padded.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else padded


class _Cast(torch.autograd.Function):
    """Casts all weights to one dtype at once, and their gradients back."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.weights = weights
        cast = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(cast, list(weights))
        return tuple(cast)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        cast = [torch.empty_like(weight) for weight in ctx.weights]
        torch._foreach_copy_(cast, list(grads))
        return None, *cast


class _Norm(NamedTuple):
    kernels: ModuleType
    layer: Any  # nn.BatchNorm2d
    pool: bool


class _NormReLU(torch.autograd.Function):
    """Batch normalization and ReLU; with `pool` into the buffer of a level, and 2 x 2 maxima."""

    @staticmethod
    def forward(ctx: Any, step: _Norm, z: Tensor, weight: Tensor, bias: Tensor) -> Any:
        kernels, norm, pool = step
        z = z.contiguous(memory_format=torch.channels_last)
        if not norm.training:
            scale = torch.rsqrt(norm.running_var + norm.eps)
            statistics = torch.stack([norm.running_mean, scale])
        elif z.numel() > z.shape[1]:
            statistics = kernels.batch_statistics(z, norm)
        else:
            raise ValueError("batch normalization needs more than one value per channel")
        ctx.save_for_backward(z, statistics)
        ctx.kernels, ctx.norm, ctx.fixed = kernels, norm, not norm.training
        return (kernels.normalize_pool if pool else kernels.normalize)(z, statistics, norm)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_pooled: Tensor | None = None) -> Any:
        z, statistics = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        if grad_pooled is not None:
            grad_pooled = grad_pooled.contiguous(memory_format=torch.channels_last)
        grad_z, (grad_bias, grad_weight) = ctx.kernels.normalize_backward(
            z, statistics, ctx.norm, grad, grad_pooled, ctx.fixed
        )
        return None, grad_z, grad_weight, grad_bias


class _Enlarge(torch.autograd.Function):
    """The transposed convolution of a level, into the last half of the channels of a buffer."""

    @staticmethod
    def forward(
        ctx: Any, kernels: ModuleType, buffer: Tensor, coarse: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(coarse, weight)
        ctx.mark_dirty(buffer)
        return kernels.upconv_into(buffer, coarse, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        coarse, weight = ctx.saved_tensors
        count, inner, h, w = coarse.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        columns, grad_bias = ctx.kernels.gather_upper(grad)
        matrix = weight.permute(0, 2, 3, 1).reshape(inner, -1)
        grad_coarse = (columns @ matrix.T).view(count, h, w, inner).permute(0, 3, 1, 2)
        rows = coarse.permute(0, 2, 3, 1).reshape(-1, inner)
        grad_weight = (rows.T @ columns).view(inner, 2, 2, -1).permute(0, 3, 1, 2)
        return None, grad, grad_coarse, grad_weight, grad_bias
