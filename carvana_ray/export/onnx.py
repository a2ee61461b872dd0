"""Export a model folder as one ONNX file: decoded pixels in, masks out.

The graph holds everything that prediction does to pixels: gray, block means, standardization,
network, upsampling, threshold. Decoding stays outside. A JPEG that is decoded at full size and
averaged differs by 0.7 gray levels on average from one that is decoded at a fraction of its size
(`images.load_gray`). So there are two kinds of file, named by their input (`SOURCES`).

torch's exporter needs onnx and onnxscript, verification needs onnxruntime. All are optional.
"""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carvana_ray import __version__, images
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.errors import InputError
from carvana_ray.inference.fused import FusedUNet
from carvana_ray.unet.network import UNet

# The input of a file: all pixels, or gray levels on the network's grid as in `images.load_gray`.
SOURCES = ("picture", "gray")
OUTPUTS = ("mask", "alpha")
OPSET = 18  # of December 2022; torch's exporter writes it without a conversion
EXPORT_PACKAGES = ("onnx", "onnxscript")
RUNTIME_PACKAGE = "onnxruntime"
# (H, W) of the example images for tracing. One more than a multiple of 16 is odd on every grid, so
# the network pads to whole blocks in the trace, which other sizes need.
TRACE_SIZE = (305, 401)


class MaskGraph(nn.Module):
    """The network with everything that `predict` does to pixels before and after it.

    Args:
        network: maps standardized images [B, 1, h, w] to logits [B, 1, h, w], in eval mode.
        downscale: pixels per side of a block of the network's grid.
        source: one of `SOURCES`.
        mirror: average the network's output with that of the mirrored image.
    """

    rounding_offsets: Tensor

    def __init__(
        self, network: nn.Module, downscale: int, source: str, mirror: bool = False
    ) -> None:
        super().__init__()
        self.network, self.downscale = network, downscale
        self.source, self.mirror = source, mirror
        self.register_buffer("rounding_offsets", _rounding_offsets(downscale), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask (255 car, 0 background) and the alpha of a batch of images.

        Alpha is that of `carvana_ray.cutouts.alpha.soft_alpha`.

        Args:
            pixels: uint8 [B, H, W, 3] with channels in any order, or gray levels uint8 [B, h, w].

        Returns:
            Two tensors, uint8 [B, H, W]; of gray levels [B, h * downscale, w * downscale].
        """
        gray = self.block_means(pixels) if self.source == "picture" else pixels.float()
        x = images.standardize(gray).unsqueeze(1)
        soft_mask = torch.sigmoid(self.network(x))
        if self.mirror:
            soft_mask = (soft_mask + torch.sigmoid(self.network(x.flip(-1)).flip(-1))) / 2
        soft_mask = (soft_mask * 255).round()
        if self.downscale > 1:  # exact in float32, see `images.enlarge`
            scale = float(self.downscale)
            soft_mask = F.interpolate(
                soft_mask, scale_factor=scale, mode="bilinear", align_corners=False
            )
        upsampled = soft_mask[:, 0]
        if self.source == "picture":
            upsampled = upsampled[:, : pixels.shape[1], : pixels.shape[2]]
        mask = (upsampled > 127.5).to(torch.uint8) * 255
        return mask, (2 * upsampled - 128).ceil().clamp(0, 255).to(torch.uint8)

    def block_means(self, pixels: Tensor) -> Tensor:
        """Return the gray levels of `images.to_gray`: float32 [B, h, w] of [B, H, W, 3].

        As in `images.to_gray` there are two roundings: the mean of the three channels of a pixel
        (thirds have no ties), and the mean of the pixels of a block.
        """
        gray = (pixels.float().sum(-1) / 3).round()
        side = self.downscale
        if side == 1:
            return gray
        height, width = gray.shape[-2:]
        padded = F.pad(gray.unsqueeze(1), (0, -width % side, 0, -height % side))
        sums = F.avg_pool2d(padded, side)[:, 0] * side**2  # a power of two: exact
        h, w = sums.shape[-2:]
        rows = (height - side * torch.arange(h)).clamp(max=side)
        columns = (width - side * torch.arange(w)).clamp(max=side)
        counts = rows[:, None] * columns
        return ((sums + self.rounding_offsets[counts]) / counts).floor()


def _rounding_offsets(downscale: int) -> Tensor:
    """Return the number that Pillow adds to the sum of n pixels before it divides by n, by n.

    ``Image.reduce`` multiplies by a rounded reciprocal (``Reduce.c``), so a mean that would be a
    whole number comes out one less unless n is a power of two. Half a unit less gives the same, and
    is far from any tie.
    """
    counts = torch.arange(downscale**2 + 1)
    power_of_two = (counts & (counts - 1)) == 0
    return counts // 2 - torch.where(power_of_two, 0.0, 0.5)


def require_packages(*packages: str) -> None:
    """Raise `InputError` if any of these packages is missing."""
    if missing := [name for name in packages if not is_installed(name)]:
        names = " and ".join(missing)
        raise InputError(f"to export, {names} must be installed: {install_command()}")


def is_installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def install_command() -> str:
    """Return the command that installs all optional packages of export."""
    return f"pip install {' '.join((*EXPORT_PACKAGES, RUNTIME_PACKAGE))}"


def to_onnx(network: UNet, manifest: ModelManifest, source: str) -> bytes:
    """Return a model as an ONNX file with metadata; batch, height and width are free.

    Args:
        network, manifest: the model.
        source: one of `SOURCES`.

    Raises:
        InputError: a package is missing.
    """
    require_packages(*EXPORT_PACKAGES)
    graph = MaskGraph(FusedUNet(network), manifest.downscale, source, manifest.tta_flip).eval()
    channels = (3,) if source == "picture" else ()
    example = torch.zeros((2, *TRACE_SIZE, *channels), dtype=torch.uint8)
    free_sizes = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    with _without_warnings():
        # A network that pads takes another branch for sizes that need no padding. Guards for that
        # branch become assertions, which ONNX does not have; padding by 0 gives the same result.
        traced = torch.export.export(
            graph,
            (example,),
            dynamic_shapes=(free_sizes,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program: Any = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=[source],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    proto = program.model_proto
    _remove_traces(proto)
    _name_sizes(proto.graph, manifest.downscale, source)
    for key, text in metadata(manifest, source).items():
        proto.metadata_props.add(key=key, value=text)
    return proto.SerializeToString()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence torch's warnings about optional packages: its loggers reset their own level."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _remove_traces(proto: Any) -> None:
    """Remove torch's names for sizes, and stack traces with paths of this machine."""
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def _name_sizes(graph: Any, downscale: int, source: str) -> None:
    inputs = outputs = ("batch", "height", "width")
    if source == "gray":
        inputs = ("batch", "h", "w")
        outputs = ("batch", f"{downscale}*h", f"{downscale}*w")
    for value in (*graph.input, *graph.output):
        names = inputs if value.name == source else outputs
        for axis, name in enumerate(names):
            value.type.tensor_type.shape.dim[axis].dim_param = name


def metadata(manifest: ModelManifest, source: str) -> dict[str, str]:
    """Return the metadata of an exported file."""
    layout = "[batch, height, width, 3], decoded pixels as stored, red, green, blue in any order"
    if source == "gray":
        layout = (
            "[batch, h, w], the mean of red, green and blue of each block of the network's grid"
        )
    return {
        "carvana_ray.version": __version__,
        "carvana_ray.model_sha256": manifest.sha256,
        "carvana_ray.run": manifest.run,
        "carvana_ray.network": json.dumps(manifest.to_json()["network"]),
        "carvana_ray.input": f"uint8 {layout}",
        "carvana_ray.downscale": str(manifest.downscale),
        "carvana_ray.standardize": "(x - mean) / sqrt(variance + 1), each picture by its own",
        "carvana_ray.mirror": json.dumps(manifest.tta_flip),  # for information: it is in the graph
        "carvana_ray.threshold": "0.5 of the network's soft mask, after enlarging",
        "carvana_ray.mask": "255 car, 0 none",
        "carvana_ray.alpha": "soft edges; 128 and more exactly where the mask is 255",
        "carvana_ray.trained_on": f"{manifest.height} x {manifest.width} (height x width)",
    }
