"""Small model folders with complete manifests."""

from pathlib import Path
from typing import Any

from carvana_ray.checkpoints.model import ModelManifest, save_model, sha256, to_bytes
from carvana_ray.unet.network import UNet, UNetConfig

History = list[dict[str, float]]


def manifest_of(weights: bytes = b"", **changes: Any) -> ModelManifest:
    """Return the manifest of weights, by default of a network of base 2 and downscale 8."""
    values: dict[str, Any] = {
        "sha256": sha256(weights),
        "unet": UNetConfig(base=2, norm="batch"),
        "downscale": 8,
        "height": 1280,
        "width": 1918,
        "training": {"seed": 3},
        "run": "abc",
        "holdout_cars": ["a"],
        "val_cars": ["b"],
        "metrics": {"val_dice": 0.5},
    }
    return ModelManifest(**(values | changes))


def write_model(
    folder: Path, network: UNet, history: History | None = None, **changes: Any
) -> ModelManifest:
    """Write a network as a model folder; return its manifest with `changes`."""
    weights = to_bytes(dict(network.state_dict()))
    manifest = manifest_of(weights, **changes)
    save_model(str(folder), weights, manifest, history or [manifest.metrics])
    return manifest
