"""Run an exported file with onnxruntime and compare its masks with those of `predict`.

onnxruntime multiplies in another order than torch, so logits differ in their last digits, and a few
of the 2.4 million pixels of a mask may differ.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.errors import IncompleteError
from carvana_ray.export.onnx import RUNTIME_PACKAGE, require_packages
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet import metrics
from carvana_ray.unet.network import UNet

# Fraction of a mask's pixels: 245 of 1280 x 1918. CPU and GPU differ by about as much.
TOLERATED_FRACTION = 1e-4


class ExportedModel:
    """An exported file, run by onnxruntime on the CPU.

    Args:
        data: bytes of the ONNX file.

    Raises:
        InputError: onnxruntime is not installed.
    """

    def __init__(self, data: bytes) -> None:
        require_packages(RUNTIME_PACKAGE)
        runtime: Any = importlib.import_module(RUNTIME_PACKAGE)
        self._session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (self.source,) = (value.name for value in self._session.get_inputs())
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def masks(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return the masks of a batch of the file's input: bool [B, H, W]."""
        return self._session.run(["mask"], {self.source: pixels})[0] > 0

    def alphas(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the soft alpha of a batch of the file's input: uint8 [B, H, W]."""
        return self._session.run(["alpha"], {self.source: pixels})[0]


def verify(
    data: bytes, network: UNet, manifest: ModelManifest, image_files: Sequence[bytes]
) -> dict[str, int | float]:
    """Compare the masks of an exported file with those of its model.

    Each image is run alone; a crop of odd size is run in a batch with its mirror image.

    Args:
        data: bytes of the ONNX file.
        network, manifest: the model it was exported from.
        image_files: bytes of one or more images.

    Returns:
        ``images``, their number; ``pixels_differ``, the number of pixels that differ from torch's
        masks of the same pixels; ``dice``, the mean Dice with the masks that `predict` writes for
        images that are upright and of about the training size.

    Raises:
        IncompleteError: a mask differs in more than `TOLERATED_FRACTION` of its pixels.
        BadImageError: an image cannot be decoded.
    """
    model, downscale = ExportedModel(data), manifest.downscale
    predictor = Predictor(network, torch.device("cpu"), manifest.tta_flip)
    pixels_differ, worst, scores = 0, 0.0, []
    for image_file in image_files:
        color, gray = images.load_rgb(image_file), images.load_gray(image_file, downscale)
        whole = np.array(color if model.source == "picture" else gray)[None]
        crops = _odd_crops(whole[0])
        whole_masks = model.masks(whole)
        for batch, masks in ((whole, whole_masks), (crops, model.masks(crops))):
            for pixels, mask in zip(batch, masks, strict=True):
                differ = int(np.count_nonzero(mask != _torch_mask(predictor, downscale, pixels)))
                pixels_differ += differ
                worst = max(worst, differ / mask.size)
        mask = whole_masks[0, : color.height, : color.width]
        scores.append(metrics.dice(mask, _mask(predictor, gray, color.height, color.width)))
    if worst > TOLERATED_FRACTION:
        raise IncompleteError(
            f"masks of the exported file differ from torch's in up to {worst:.2%} of an image's "
            f"pixels; {TOLERATED_FRACTION:.2%} are allowed; no file was written"
        )
    return {
        "images": len(image_files),
        "pixels_differ": pixels_differ,
        "dice": round(float(np.mean(scores)), 6),
    }


def _odd_crops(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a crop with odd height and width, and its mirror image."""
    crop = pixels[: len(pixels) * 2 // 3 | 1, : pixels.shape[1] * 2 // 3 | 1]
    return np.stack([crop, crop[:, ::-1]])


def _torch_mask(
    predictor: Predictor, downscale: int, pixels: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Return torch's mask of pixels [H, W, 3], or of gray levels [h, w] in whole blocks."""
    height, width = pixels.shape[:2]
    if pixels.ndim == 2:
        return _mask(predictor, pixels, height * downscale, width * downscale)
    return _mask(predictor, images.to_gray(Image.fromarray(pixels), downscale), height, width)


@torch.inference_mode()
def _mask(
    predictor: Predictor, gray: NDArray[np.uint8], height: int, width: int
) -> NDArray[np.bool_]:
    """Return the mask that `predict` writes for gray levels [h, w]."""
    soft_mask = predictor.soft_masks(np.array(gray[None]))[0].cpu().numpy()
    return images.enlarge(soft_mask, height, width)
