"""In place of the published weights of EfficientNet-Lite0: their names and shapes, drawn."""

from pathlib import Path

import torch

from carvana_ray.training import pretrained


def published() -> dict[str, torch.Tensor]:
    """Random weights under the names of the published file, in its shapes."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3)}
    norms = {"_bn0": 32, "_bn1": 1280}
    stages = [(1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80)]
    stages += [(3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320)]
    number, before = 0, 32
    for repeats, side, expansion, channels in stages:
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", before * expansion
            if expansion > 1:
                shapes[f"{block}._expand_conv.weight"] = (inner, before, 1, 1)
                norms[f"{block}._bn0"] = inner
            shapes[f"{block}._depthwise_conv.weight"] = (inner, 1, side, side)
            shapes[f"{block}._project_conv.weight"] = (channels, inner, 1, 1)
            norms |= {f"{block}._bn1": inner, f"{block}._bn2": channels}
            number, before = number + 1, channels
    shapes |= {"_conv_head.weight": (1280, 320, 1, 1), "_fc.weight": (1000, 1280)}
    shapes["_fc.bias"] = (1000,)
    for name, channels in norms.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.{part}": (channels,) for part in parts}
        shapes[f"{name}.num_batches_tracked"] = ()
    assert len(shapes) == 296
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def install(folder: Path) -> dict[str, torch.Tensor]:
    """Write a package with `published` weights into a folder of `sys.path`; return them."""
    weights = published()
    file = folder / pretrained.PACKAGE / pretrained.FILE
    file.parent.mkdir(parents=True)
    (folder / pretrained.PACKAGE / "__init__.py").touch()
    torch.save(weights, file)
    return weights
