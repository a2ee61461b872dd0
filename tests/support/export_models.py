"""Small models for the tests of export, and images for them."""

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from support.models import manifest_of, write_model

from carvana_ray import images
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.export import onnx
from carvana_ray.unet.network import UNet, UNetConfig


def trained_network(norm: str, fold: int = 1, encoder: str = "none", base: int = 2) -> UNet:
    """Return a small network with random statistics, whose masks have car and background."""
    torch.manual_seed(0)
    model = UNet(base=base, norm=norm, fold=fold, encoder=encoder)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
    for layer in model.encoder.modules() if model.encoder else ():
        if isinstance(layer, torch.nn.Conv2d):  # else maps vanish from block to block
            torch.nn.init.kaiming_normal_(layer.weight)
    return _balance(model.eval(), 4 // fold**2)


def _balance(model: UNet, downscale: int) -> UNet:
    """Set the last layer so that the mask of a random image is half car."""
    torch.nn.init.normal_(model.head.weight)
    gray = images.to_gray(Image.fromarray(random_images(1, 301, 411)[0]), downscale)
    with torch.no_grad():
        logits = model(torch.from_numpy(images.standardize(gray))[None, None])
        model.head.bias -= logits.median()
        for parameter in model.head.parameters():
            parameter *= 4 / logits.std()
    return model


@functools.cache
def exported_bytes(norm: str, downscale: int, source: str) -> bytes:
    """Return the exported file of a network. An export takes seconds."""
    return onnx.to_onnx(trained_network(norm), export_manifest(downscale, norm), source)


def export_manifest(downscale: int, norm: str) -> ModelManifest:
    return manifest_of(unet=UNetConfig(base=2, norm=norm), downscale=downscale)


def write_export_model(folder: Path, norm: str = "batch", downscale: int = 8) -> Path:
    write_model(
        folder,
        trained_network(norm),
        unet=UNetConfig(base=2, norm=norm),
        downscale=downscale,
        training={},
    )
    return folder


def random_images(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return images with large shapes and noise, uint8 [B, H, W, 3]."""
    batch = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), np.int16)
        noise = rng.integers(-20, 21, (height, width, 3))
        batch.append((smooth + noise).clip(0, 255).astype(np.uint8))
    return np.stack(batch)
