"""The U-Net: standardized gray images in, one logit of "car" for each pixel out.

Works on tensors only: no files, no device, no training. After Ronneberger et al. 2015,
https://arxiv.org/abs/1505.04597: on each level two 3 x 3 convolutions; 2 x 2 max pooling leads
down, a 2 x 2 transposed convolution up, where the level of the same size on the way down is
concatenated (skip connection).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carvana_ray.unet.lite import DEPTH, Lite0, level_channels

NORMS = ("batch", "none")
ENCODERS = ("none", "lite0")


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


def _level(in_channels: int, channels: int, norm: str) -> nn.Sequential:
    bias = norm == "none"  # batch normalization subtracts the mean, which cancels a bias
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias),
        _norm(norm, channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
        _norm(norm, channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """A U-Net for images of any size.

    With ``base=32, depth=5, fold=1``, B images of C channels and h x w pixels::

        image [B, C, h, w]                                       logits [B, 1, h, w]
          down[0]  32, h    x w    ---------- skip ---------->  up[3]  32, h    x w     head: 1 x 1
          down[1]  64, h/2  x w/2  ---------- skip ---------->  up[2]  64, h/2  x w/2
          down[2] 128, h/4  x w/4  ---------- skip ---------->  up[1] 128, h/4  x w/4
          down[3] 256, h/8  x w/8  ---------- skip ---------->  up[0] 256, h/8  x w/8
                         down[4] 512, h/16 x w/16

    `enlarge` holds the transposed convolutions between the levels on the way up. If h or w is not
    a multiple of ``fold * 2 ** (depth - 1)``, the last row and column are repeated to fill it, and
    the logits are cropped back to h x w. ``UNet(norm="none")`` is the network of the 2017 project
    with 7.76 million parameters.

    Args:
        base: channels of the finest level; each coarser level has twice as many.
        depth: number of levels; the coarsest has ``1 / 2 ** (depth - 1)`` of the height and width.
        in_channels: channels C of the image.
        norm: ``batch`` (batch normalization after each 3 x 3 convolution) or ``none``.
        fold: side f of the blocks of f x f pixels that become channels of one grid cell, so that a
            full-size image costs about as much as one of 1/f of the size (pixel unshuffle; logits
            are shuffled back; Shi et al. 2016, https://arxiv.org/abs/1609.05158).
        encoder: ``none``, or ``lite0`` for an `unet.lite.Lite0` that sees the folded image too. Its
            maps are concatenated to the inputs of the levels on the way down. It needs ``batch``, a
            depth of 5 and one channel.

    Raises:
        ValueError: an unknown `norm` or `encoder`, or a number that is not allowed.
    """

    def __init__(
        self,
        base: int = 32,
        depth: int = 5,
        in_channels: int = 1,
        norm: str = "batch",
        fold: int = 1,
        encoder: str = "none",
    ) -> None:
        super().__init__()
        fits = (norm, depth, in_channels) == ("batch", DEPTH, 1)
        if (
            norm not in NORMS
            or min(base, depth, in_channels, fold) < 1
            or encoder not in (ENCODERS if fits else ENCODERS[:1])
        ):
            raise ValueError(
                f"not a valid network: base={base}, depth={depth}, in_channels={in_channels}, "
                f"norm={norm}, fold={fold}, encoder={encoder}"
            )
        self.fold = fold
        widths = [base * 2**level for level in range(depth)]
        joined = [0] * depth if encoder == "none" else level_channels(fold)
        self.down = nn.ModuleList(
            _level(before + more, width, norm)
            for (before, width), more in zip(
                pairwise([in_channels * fold**2, *widths]), joined, strict=True
            )
        )
        upward = list(pairwise(reversed(widths)))
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in upward
        )
        self.up = nn.ModuleList(_level(2 * fine, fine, norm) for _, fine in upward)
        self.head = nn.Conv2d(base, fold**2, 1)
        self.encoder = None if encoder == "none" else Lite0(fold)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits float [B, 1, h, w] of standardized images float [B, C, h, w]."""
        height, width = x.shape[-2:]
        block = self.fold * 2 ** (len(self.down) - 1)
        if height % block or width % block:
            x = F.pad(x, (0, -width % block, 0, -height % block), mode="replicate")
        if self.fold > 1:
            folded = F.pixel_unshuffle(x, self.fold)
            x = folded.contiguous(memory_format=torch.channels_last)
        maps = self.encoder(x) if self.encoder else []
        skips = []
        for number, level in enumerate(self.down[:-1]):
            skip, x = self._downsample(level(join(x, maps, number)))
            skips.append(skip)
        x = self.down[-1](join(x, maps, -1))
        for enlarge, level in zip(self.enlarge, self.up, strict=True):
            x = level(self._upsample_concat(skips.pop(), x, enlarge))
        logits = self.head(x)
        if self.fold > 1:
            logits = F.pixel_shuffle(logits, self.fold)
        return logits[..., :height, :width]

    def _downsample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the skip connection of a level and the input of the level below."""
        return x, F.max_pool2d(x, 2)

    def _upsample_concat(self, skip: Tensor, coarse: Tensor, enlarge: nn.Module) -> Tensor:
        """Return the skip connection concatenated with the enlarged output of the level below."""
        return torch.cat([skip, enlarge(coarse)], dim=1)


def join(x: Tensor, maps: list[Tensor | None], level: int) -> Tensor:
    """Return the input of a level on the way down with the encoder's map for it, if any."""
    joined = maps[level] if maps else None
    return x if joined is None else torch.cat([x, joined], dim=1)


@dataclass(frozen=True)
class UNetConfig:
    """The configuration of a network, as manifests and checkpoints store it; see `UNet`."""

    base: int
    norm: str
    fold: int = 1
    encoder: str = "none"

    def build(self) -> UNet:
        """Return a new network with random weights."""
        return UNet(self.base, norm=self.norm, fold=self.fold, encoder=self.encoder)

    def to_json(self) -> dict[str, int | str]:
        """Return the entry of ``manifest.json``."""
        network: dict[str, int | str] = {
            "kind": "unet",
            "base": self.base,
            "norm": self.norm,
            "fold": self.fold,
        }
        # Without an encoder as versions before encoders wrote it.
        return network if self.encoder == "none" else {**network, "encoder": self.encoder}


def glorot_init_(model: nn.Module) -> None:
    """Initialize each convolution as the 2017 project did: Glorot uniform weights, zero biases.

    Source: Glorot and Bengio 2010, formula 16 (the default of Keras). Draws from torch's global
    random generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def compute_dtype(model: UNet, device: torch.device) -> torch.dtype:
    """Return the dtype of a network's forward pass.

    float32 on a CPU, where no dtype is faster. On a GPU float16 with batch normalization, which
    keeps activations in its range, and bfloat16 without.
    """
    if device.type != "cuda":
        return torch.float32
    normalized = any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    return torch.float16 if normalized else torch.bfloat16
