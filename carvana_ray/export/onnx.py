"""A model folder as one ONNX file: decoded pixels in, masks out, in any language that runs ONNX.

All that prediction does to pixels is in the graph: gray, block mean, standardization, network,
enlargement, threshold. What is before it is the decoder's work. A JPEG that is decoded in full and
averaged differs from one that is decoded at a fraction of its size (`images.load_gray`) by 0.7 gray
levels on average; so there are two kinds of file, by what they take (`SOURCES`).

The network is the one that `checkpoint.read_model` builds; nothing here knows what is in it.
torch's exporter needs onnx and onnxscript, the check onnxruntime: they are asked for by name where
they are missing, and no other job needs them.
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
from carvana_ray.inference import fused
from carvana_ray.unet.network import UNet

# What a file takes: all pixels, or gray levels on the network's grid as `images.load_gray` gives.
SOURCES = ("picture", "gray")
OUTPUTS = ("mask", "alpha")
OPSET = 18  # of December 2022; what torch's exporter writes without converting to another one
NEEDED = ("onnx", "onnxscript")
RUNTIME = "onnxruntime"
# (H, W) of the pictures that are traced. One more than a multiple of 16 is odd on every grid, so a
# network that pads to whole blocks does so, as it must for any size to be right.
TRACED = (305, 401)


class Masks(nn.Module):
    """A network between what `predict` does to pixels before it and after it.

    Args:
        network: standardized pictures [B, 1, h, w] to logits [B, 1, h, w], in evaluation.
        downscale: of the model, see `images.load_gray`.
        source: one of `SOURCES`.
        mirror: see `predictor.Predictor`.
    """

    halves: Tensor

    def __init__(
        self, network: nn.Module, downscale: int, source: str, mirror: bool = False
    ) -> None:
        super().__init__()
        self.network, self.downscale = network, downscale
        self.source, self.mirror = source, mirror
        self.register_buffer("halves", _halves(downscale), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mask and alpha of the pictures.

        Args:
            pixels: uint8 [B, H, W, 3], the order of colours does not matter; or [B, h, w].

        Returns:
            uint8 [B, H, W] each, of gray levels [B, h * downscale, w * downscale]: 255 where car is
            and 0 elsewhere; `cutout.soft_alpha`.
        """
        gray = self.block_means(pixels) if self.source == "picture" else pixels.float()
        x = images.standardize(gray).unsqueeze(1)
        share = torch.sigmoid(self.network(x))
        if self.mirror:
            share = (share + torch.sigmoid(self.network(x.flip(-1)).flip(-1))) / 2
        share = (share * 255).round()
        if self.downscale > 1:  # exact in float32, see `images.enlarge`
            share = F.interpolate(
                share, scale_factor=float(self.downscale), mode="bilinear", align_corners=False
            )
        smooth = share[:, 0]
        if self.source == "picture":
            smooth = smooth[:, : pixels.shape[1], : pixels.shape[2]]
        mask = (smooth > 127.5).to(torch.uint8) * 255
        return mask, (2 * smooth - 128).ceil().clamp(0, 255).to(torch.uint8)

    def block_means(self, pixels: Tensor) -> Tensor:
        """Return the gray levels that `images.gray_of` gives for these pixels: float32 [B, h, w].

        Two roundings, as there: the mean of red, green and blue of each pixel (thirds have no
        ties), and the mean of each block.
        """
        gray = (pixels.float().sum(-1) / 3).round()
        times = self.downscale
        if times == 1:
            return gray
        height, width = gray.shape[-2:]
        whole = F.pad(gray.unsqueeze(1), (0, -width % times, 0, -height % times))
        sums = F.avg_pool2d(whole, times)[:, 0] * times**2  # a power of two: exact
        h, w = sums.shape[-2:]
        rows = (height - times * torch.arange(h)).clamp(max=times)
        columns = (width - times * torch.arange(w)).clamp(max=times)
        counts = rows[:, None] * columns
        return ((sums + self.halves[counts]) / counts).floor()


def _halves(downscale: int) -> Tensor:
    """Return for 0..downscale ** 2 pixels what Pillow adds to their sum before it divides.

    ``Image.reduce`` multiplies by a rounded reciprocal (``Reduce.c``): what would come out whole
    comes out one less, but for powers of two. Half a unit less is the same, and far from any tie.
    """
    counts = torch.arange(downscale**2 + 1)
    power_of_two = (counts & (counts - 1)) == 0
    return counts // 2 - torch.where(power_of_two, 0.0, 0.5)


def require(*packages: str) -> None:
    """Raise `InputError` if packages that export alone needs are not installed."""
    missing = [name for name in packages if not installed(name)]
    if missing:
        raise InputError(f"to export, {' and '.join(missing)} must be installed: {command()}")


def installed(package: str) -> bool:
    """Return whether a package can be imported."""
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def command() -> str:
    """Return the command that installs all that export can use."""
    return f"pip install {' '.join((*NEEDED, RUNTIME))}"


def to_onnx(network: UNet, manifest: ModelManifest, source: str) -> bytes:
    """Return the ONNX file of a model, with its metadata; batch, height and width are free.

    Args:
        network, manifest: as `checkpoint.read_model` gives them.
        source: one of `SOURCES`.

    Raises:
        InputError: a package is missing.
    """
    model = Masks(fused.FusedUNet(network), manifest.downscale, source, manifest.mirror)
    return write(model.eval(), manifest)


def write(model: Masks, manifest: ModelManifest) -> bytes:
    """Return the ONNX file of a network with all about it, see `to_onnx`."""
    require(*NEEDED)
    shape = (2, *TRACED, 3) if model.source == "picture" else (2, *TRACED)
    free = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    with _quiet():
        # Sizes that need no padding are a branch of their own in networks that pad: their guards
        # become assertions, which ONNX has none of. To pad by nothing is right, too.
        traced = torch.export.export(
            model,
            (torch.zeros(shape, dtype=torch.uint8),),
            dynamic_shapes=(free,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program: Any = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=[model.source],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    return _finished(program.model_proto, manifest, model.source)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch tells of packages that nobody here needs, by loggers that reset their own level."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _finished(proto: Any, manifest: ModelManifest, source: str) -> bytes:
    """Name the free sizes, put in the metadata, take out the paths of whoever exported it."""
    graph = proto.graph
    del graph.value_info[:]  # with sizes named by torch
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # stack traces
    times = manifest.downscale
    whole = ["batch", "height", "width"]
    inside = whole if source == "picture" else ["batch", "h", "w"]
    outside = whole if source == "picture" else ["batch", f"{times}*h", f"{times}*w"]
    for value in (*graph.input, *graph.output):
        names = inside if value.name == source else outside
        for place, name in enumerate(names):
            value.type.tensor_type.shape.dim[place].dim_param = name
    for key, text in metadata(manifest, source).items():
        proto.metadata_props.add(key=key, value=text)
    return proto.SerializeToString()


def metadata(manifest: ModelManifest, source: str) -> dict[str, str]:
    """Return what a file says of itself, as plain strings."""
    told = manifest.to_json()
    layout = "[batch, height, width, 3], decoded pixels as stored, red, green, blue in any order"
    if source == "gray":
        layout = (
            "[batch, h, w], the mean of red, green and blue of each block of the network's grid"
        )
    return {
        "carvana_ray.version": __version__,
        "carvana_ray.model_sha256": manifest.sha256,
        "carvana_ray.run": manifest.run,
        "carvana_ray.network": json.dumps(told["network"]),
        "carvana_ray.input": f"uint8 {layout}",
        "carvana_ray.downscale": str(manifest.downscale),
        "carvana_ray.standardize": "(x - mean) / sqrt(variance + 1), each picture by its own",
        "carvana_ray.mirror": json.dumps(manifest.mirror),  # in the graph, for whoever wonders
        "carvana_ray.threshold": "0.5 of the network's share of car, after enlarging",
        "carvana_ray.mask": "255 car, 0 none",
        "carvana_ray.alpha": "soft edges; 128 and more exactly where the mask is 255",
        "carvana_ray.trained_on": f"{manifest.height} x {manifest.width} (height x width)",
    }
