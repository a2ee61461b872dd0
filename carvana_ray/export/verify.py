"""An exported file as its user runs it, and whether its masks are those of `predict`.

onnxruntime multiplies in another order than torch, so a network's answer differs in its last digits
and a share of car by one level, now and then: of 2.4 million pixels of a mask none or a few.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.errors import IncompleteError
from carvana_ray.export.onnx import RUNTIME, require
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet import metrics
from carvana_ray.unet.network import UNet

TOLERATED = 1e-4  # of a mask's pixels, 245 of 1280 x 1918; CPU and GPU differ by about as much


class Exported:
    """A file, run by onnxruntime on the CPU.

    Args:
        data: the file's bytes.

    Raises:
        InputError: onnxruntime is not installed.
    """

    def __init__(self, data: bytes) -> None:
        require(RUNTIME)
        runtime: Any = importlib.import_module(RUNTIME)
        self._session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (self.source,) = (value.name for value in self._session.get_inputs())
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def masks(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return the masks of a batch of what the file takes: bool [B, H, W]."""
        return self._session.run(["mask"], {self.source: pixels})[0] > 0

    def alphas(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the soft edges of a batch of what the file takes: uint8 [B, H, W]."""
        return self._session.run(["alpha"], {self.source: pixels})[0]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far masks of a file are from those of torch.

    Attributes:
        images: pictures.
        masks: of pictures and parts of them.
        pixels: that differ, of all masks.
        worst: the largest share of a mask's pixels that differ.
        dice: mean over pictures, with the masks that `predict` writes of the same files.
    """

    images: int
    masks: int
    pixels: int
    worst: float
    dice: float


def check(
    data: bytes, network: UNet, manifest: ModelManifest, pictures: Sequence[bytes]
) -> dict[str, int | float]:
    """Return what an export tells of its file: ``images``, ``pixels_differ``, ``dice``.

    Args:
        data: the file's bytes.
        network, manifest: what it was made of.
        pictures: files, one or more.

    Raises:
        Unfinished: masks differ by more than `TOLERATED`.
        BadPicture: a picture cannot be used.
    """
    ask = Predictor(network, torch.device("cpu"), manifest.mirror)
    found = compare(Exported(data), ask, manifest.downscale, pictures)
    if found.worst > TOLERATED:
        raise IncompleteError(
            f"masks of the exported file differ from torch's by up to {found.worst:.2%} of a "
            f"picture's pixels, {TOLERATED:.2%} are allowed; no file was written"
        )
    return {"images": found.images, "pixels_differ": found.pixels, "dice": round(found.dice, 6)}


def compare(
    file: Exported, ask: Predictor, downscale: int, pictures: Sequence[bytes]
) -> Difference:
    """Return how far a file's masks are from those of the same pixels by torch.

    Each picture is asked alone, and a part of odd size in a batch with its mirror image.

    Args:
        file: the file.
        ask: the network that it was made of.
        downscale: of the model.
        pictures: files, one or more.

    Raises:
        BadPicture: one of them cannot be used.
    """
    masks, pixels, worst, scores = 0, 0, 0.0, []
    for data in pictures:
        colour, gray = images.load_rgb(data), images.load_gray(data, downscale)
        given = np.array(colour if file.source == "picture" else gray)
        alone = file.masks(given[None])
        part = given[: len(given) * 2 // 3 | 1, : given.shape[1] * 2 // 3 | 1]
        both = np.stack([part, part[:, ::-1]])
        for asked, found in ((given[None], alone), (both, file.masks(both))):
            for one, mask in zip(asked, found, strict=True):
                differ = int(np.count_nonzero(mask != _expected(ask, downscale, one)))
                masks, pixels = masks + 1, pixels + differ
                worst = max(worst, differ / mask.size)
        predicted = _mask(ask, gray, colour.height, colour.width)
        scores.append(metrics.dice(alone[0, : colour.height, : colour.width], predicted))
    return Difference(
        images=len(pictures),
        masks=masks,
        pixels=pixels,
        worst=worst,
        dice=float(np.mean(scores)),
    )


def _expected(ask: Predictor, downscale: int, given: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return torch's mask of pixels [H, W, 3], or of gray levels [h, w] in whole blocks."""
    if given.ndim == 2:
        return _mask(ask, given, given.shape[0] * downscale, given.shape[1] * downscale)
    gray = images.to_gray(Image.fromarray(given), downscale)
    return _mask(ask, gray, *given.shape[:2])


@torch.inference_mode()
def _mask(ask: Predictor, gray: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    return images.enlarge(ask.soft_masks(np.array(gray[None]))[0].cpu().numpy(), height, width)
