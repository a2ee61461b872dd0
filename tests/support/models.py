"""Model folders for tests, small and with all that a manifest says."""

from pathlib import Path
from typing import Any

from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.unet.network import UNet, UNetConfig

History = list[dict[str, float]]


def manifest_of(weights: bytes = b"", **changes: Any) -> ModelManifest:
    """Return a manifest of some weights, by default those of a network of base 2 at an eighth."""
    values: dict[str, Any] = {
        "sha256": checkpoint.sha256(weights),
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
    """Write a network as a model folder; return its manifest, `changes` in it."""
    weights = checkpoint.to_bytes(dict(network.state_dict()))
    manifest = manifest_of(weights, **changes)
    checkpoint.save_model(str(folder), weights, manifest, history or [])
    return manifest
