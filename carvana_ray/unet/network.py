"""The U-Net: a gray picture in, a logit of "car" for each of its pixels out.

Knows tensors alone: no files, no device, no training. ``depth`` levels of two 3 x 3 convolutions; a
2 x 2 maximum leads down, a 2 x 2 transposed convolution up, and each level on the way up sees the
one of the same size on the way down (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS = ("batch", "none")


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


def _level(in_channels: int, channels: int, norm: str) -> nn.Sequential:
    bias = norm == "none"  # batch normalization takes the mean away, and a bias with it
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias),
        _norm(norm, channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
        _norm(norm, channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Logits [B, 1, h, w] from standardized pictures [B, in_channels, h, w] of any size.

    ``UNet(norm="none")`` is the network of the 2017 project: channels 32-64-128-256-512, 7.76
    million parameters.

    Args:
        base: channels of the finest level; each coarser level has twice as many.
        depth: levels; the coarsest sees the picture at ``1 / 2 ** (depth - 1)``.
        in_channels: channels of the picture.
        norm: ``batch`` or ``none``, after each 3 x 3 convolution.
        fold: blocks of fold x fold pixels become the channels of one place, so that the network
            sees all of them on a grid as much smaller, and answers with a logit for each (pixel
            unshuffle and shuffle, Shi et al. 2016, https://arxiv.org/abs/1609.05158).
    """

    def __init__(
        self,
        base: int = 32,
        depth: int = 5,
        in_channels: int = 1,
        norm: str = "batch",
        fold: int = 1,
    ) -> None:
        super().__init__()
        if norm not in NORMS or min(base, depth, in_channels, fold) < 1:
            raise ValueError(
                f"no such network: base={base}, depth={depth}, in_channels={in_channels}, "
                f"norm={norm}, fold={fold}"
            )
        self.fold = fold
        widths = [base * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            _level(before, width, norm)
            for before, width in pairwise([in_channels * fold**2, *widths])
        )
        upward = list(pairwise(reversed(widths)))
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in upward
        )
        self.up = nn.ModuleList(_level(2 * fine, fine, norm) for _, fine in upward)
        self.head = nn.Conv2d(base, fold**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        block = self.fold * 2 ** (len(self.down) - 1)
        if height % block or width % block:
            x = F.pad(x, (0, -width % block, 0, -height % block), mode="replicate")
        if self.fold > 1:
            folded = F.pixel_unshuffle(x, self.fold)
            x = folded.contiguous(memory_format=torch.channels_last)
        passed = []
        for level in self.down[:-1]:
            kept, x = self._downsample(level(x))
            passed.append(kept)
        x = self.down[-1](x)
        for enlarge, level in zip(self.enlarge, self.up, strict=True):
            x = level(self._upsample_concat(passed.pop(), x, enlarge))
        logits = self.head(x)
        if self.fold > 1:
            logits = F.pixel_shuffle(logits, self.fold)
        return logits[..., :height, :width]

    def _downsample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to keep of a level's answer, and what the level below sees."""
        return x, F.max_pool2d(x, 2)

    def _upsample_concat(self, kept: Tensor, coarse: Tensor, enlarge: nn.Module) -> Tensor:
        """Return what was kept, and behind its channels what came from below, enlarged."""
        return torch.cat([kept, enlarge(coarse)], dim=1)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What the network of a model is made of: as manifests and states say it.

    Attributes:
        base, norm, fold: see `UNet`.
    """

    base: int
    norm: str
    fold: int = 1

    def build(self) -> UNet:
        """Return a new network."""
        return UNet(base=self.base, norm=self.norm, fold=self.fold)

    def to_json(self) -> dict[str, int | str]:
        """Return what a manifest says of it."""
        return {"kind": "unet", "base": self.base, "norm": self.norm, "fold": self.fold}


def glorot_init_(model: nn.Module) -> None:
    """Set each convolution as the 2017 project did: Glorot uniform weights, biases of zero.

    Source: Glorot and Bengio 2010, formula 16; Keras' default. Uses torch's global generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def compute_dtype(model: UNet, device: torch.device) -> torch.dtype:
    """Return the dtype that a network is asked in: float32 on a CPU, which has no faster one."""
    if device.type != "cuda":
        return torch.float32
    normalized = any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    return torch.float16 if normalized else torch.bfloat16
