"""Base models of the program's recipes, and flags that start from them."""

from pathlib import Path
from typing import Any

import torch
from support import models

from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.training import state as learner


def write_model(
    folder: Path, seed: int = 0, recipe: str = "default", **changes: Any
) -> ModelManifest:
    """Write a model folder of a recipe, its weights drawn."""
    torch.manual_seed(seed)
    design = changes.pop("unet", learner.unet_config(2, RECIPES[recipe]))
    values: dict[str, Any] = {
        "unet": design,
        "training": {"recipe": recipe},
        "run": f"run-{seed}",
        "started_from": ["0f"],
        "train_cars": ["c", "d"],
    }
    return models.write_model(folder, design.build(), [{"epoch": 1}], **(values | changes))


def flags_of(tmp_path: Path, **changes: Any) -> TrainFlags:
    values = {"init_from": str(tmp_path / "model"), "out": str(tmp_path / "out"), **changes}
    return TrainFlags(**values)
