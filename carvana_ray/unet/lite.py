"""EfficientNet-Lite0 without its classifier, as an encoder of folded gray images.

Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache
2.0), after Tan and Le 2019, https://arxiv.org/abs/1905.11946. Its published weights are those of
ImageNet; `from_published` renames them. Two things differ. The first convolution sees the planes of
a folded gray image instead of three colors. Padding is symmetric instead of TensorFlow's "same",
which moves a map by half a pixel and changes no class of a photograph of a car.
"""

from typing import Self

import torch
from torch import Tensor, nn

# Repeats, kernel size, stride, expansion and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
DEPTH = 5  # levels of a network that the maps meet
STEM = 32  # channels of the first convolution
TAPS = (0, 2, 4, 10, 15)  # the last block at each stride: 2, 4, 8, 16 and 32
CHANNELS = (16, 24, 40, 112, 320)  # of these blocks
EPS = 1e-3  # of the batch normalizations
_LAYERS = {  # of a block, by the published names
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


class Unit(nn.Module):
    """A convolution, batch normalization, and ReLU6 if `active`."""

    def __init__(
        self, before: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(before, channels, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels, eps=EPS)
        self.active = True

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, channels, h / stride, w / stride], rounded up, of x [B, before, h, w]."""
        x = self.norm(self.conv(x))
        return nn.functional.relu6(x) if self.active else x


class Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)."""

    def __init__(
        self, before: int, channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = Unit(before, inner, 1) if expansion > 1 else None
        self.depthwise = Unit(inner, inner, kernel, stride, groups=inner)
        self.project = Unit(inner, channels, 1)
        self.project.active = False
        self.residual = stride == 1 and before == channels

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, channels, h / stride, w / stride], rounded up, of x [B, before, h, w]."""
        inner = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(inner))
        return x + y if self.residual else y


def level_channels(fold: int) -> tuple[int, ...]:
    """Return the channels of what `Lite0.forward` returns for each level."""
    return CHANNELS if fold % 2 == 0 else (0, *CHANNELS[:3], CHANNELS[3] + CHANNELS[4])


class Lite0(nn.Module):
    """The encoder. It sees the image at twice the size of the grid; with an odd fold, at its size.

    Weights and statistics stay as they are in training, but for those of the last normalization of
    each map.

    Args:
        fold: pixels per side of a cell of the grid.
    """

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.halves = fold % 2 == 0
        # A stride of 2 over halves of cells is a stride of 1 over cells, see `_fold_stem`.
        self.stem = Unit(fold**2, STEM, 3, 1 if self.halves else 2)
        blocks, before = [], STEM
        for repeats, kernel, stride, expansion, channels in STAGES:
            for number in range(repeats):
                blocks.append(Block(before, channels, kernel, 1 if number else stride, expansion))
                before = channels
        self.blocks = nn.ModuleList(blocks)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in CHANNELS)
        for part in (self.stem, self.blocks):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the last normalizations; all others use their statistics in any mode."""
        super().train(mode)
        self.stem.eval()
        self.blocks.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor | None]:
        """Return normalized maps for levels at 1, 1/2, .. 1/16 of the grid; None for no map.

        Args:
            x: [B, fold ** 2, h, w], planes as of `torch.pixel_unshuffle`, with a mean of 0 and a
                deviation of 1 over an image; h and w are multiples of 16.
        """
        return self.normalize(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of `TAPS` of planes as of `forward`."""
        x, maps = self.stem(x), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                maps.append(x)
        return maps

    def normalize(self, features: list[Tensor]) -> list[Tensor | None]:
        """Return what `forward` returns, of the result of `features`."""
        maps = [norm(one) for norm, one in zip(self.norms, features, strict=True)]
        if self.halves:
            return list(maps)
        *maps, fine, coarse = maps
        coarse = nn.functional.interpolate(coarse, scale_factor=2.0)
        return [None, *maps, torch.cat([fine, coarse[..., : fine.shape[2], : fine.shape[3]]], 1)]


def from_published(weights: dict[str, Tensor], fold: int) -> dict[str, Tensor]:
    """Return published weights under the names of `Lite0`, for gray images.

    Args:
        weights: of the network for colors, with its classifier.
        fold: as of `Lite0`.
    """
    renamed = {
        _name(name): value for name, value in weights.items() if not name.startswith(_CLASSIFIER)
    }
    # Published weights expect levels of -1 to 1, whose deviation is about a half.
    gray = renamed["stem.conv.weight"].sum(1) / 2
    return renamed | {"stem.conv.weight": _fold_stem(gray, fold)}


def _name(published: str) -> str:
    """Return the name of a tensor: ``blocks.3.expand.conv.weight``."""
    *path, layer, value = published.split(".")
    if not path:
        return f"stem.{'norm' if layer == '_bn0' else 'conv'}.{value}"
    return f"blocks.{path[1]}.{_LAYERS[layer]}.{value}"


def _fold_stem(weight: Tensor, fold: int) -> Tensor:
    """Return a convolution over cells that is one of stride 2 over means of pixels.

    With an odd fold it has a stride of 2 over whole cells. With an even one it has a stride of 1,
    and an output sees three halves of cells in each direction: both of its cell, and the first of
    the next cell.

    Args:
        weight: [C, 3, 3], of stride 2, of an image whose pixels are means over cells or halves.

    Returns:
        [C, fold ** 2, 3, 3].
    """
    if fold % 2:
        return weight[:, None].repeat(1, fold**2, 1, 1) / fold**2
    half = fold // 2
    halves = weight.new_zeros(len(weight), 6, 6)  # of the cell before, this cell and the next
    halves[:, 2:5, 2:5] = weight
    pixels = halves.repeat_interleave(half, 1).repeat_interleave(half, 2) / half**2
    cells = pixels.unflatten(2, (3, fold)).unflatten(1, (3, fold))  # [C, row, y, column, x]
    return cells.permute(0, 2, 4, 1, 3).flatten(1, 2)
