"""Fine-tuning: starting a training run from a saved model, ``--init-from``.

The new run takes over the recipe, the network and its weights, the statistics of its normalization
layers included. The optimizer starts anew. The id of the run depends on the hash of the base
model's weights, so the checkpoints of a run belong to one base model.
"""

import dataclasses
import logging
from collections.abc import Sequence

from torch import Tensor

from carvana_ray import storage
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import ModelManifest, load_manifest, load_model
from carvana_ray.config import TrainFlags, cli
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError
from carvana_ray.training.state import unet_config

log = logging.getLogger(__name__)

FLAG = "--init-from"


def load_base_manifest(flags: TrainFlags) -> ModelManifest | None:
    """Return the manifest of the base model, or None without ``--init-from``.

    Raises:
        InputError: the model is missing or damaged, or its folder is the one this run writes to.
    """
    if not flags.init_from:
        return None
    folder = resolve_model(flags.init_from)
    if folder == storage.join(storage.resolve(flags.out), "model"):
        raise InputError(f"{FLAG} {folder}: this run writes its own model there; use another --out")
    return load_manifest(folder, FLAG)


def resolve_flags(flags: TrainFlags, base_model: ModelManifest | None) -> TrainFlags:
    """Return the flags with all that the base model gives, and its full path.

    Raises:
        InputError: a flag contradicts the base model, or its recipe is unknown to this version.
    """
    if base_model is None:
        return flags
    network, recipe = base_model.unet, base_model.training.get("recipe")
    if (
        recipe not in RECIPES
        or unet_config(network.base, RECIPES[recipe], network.encoder) != network
    ):
        raise InputError(
            f"{FLAG} {flags.init_from}: its recipe is {recipe} with {network}, which this version "
            "does not have; start from a model that this version trained"
        )
    inherited = {"recipe": recipe, "downscale": base_model.downscale, "base": network.base}
    inherited["encoder"] = network.encoder
    for name, value in inherited.items():
        given = getattr(flags, name)
        if given not in (None, value):
            raise InputError(
                f"{cli.flag(name)} {given}: the model of {FLAG} has {value}, and its weights work "
                f"with that value only; omit {cli.flag(name)}, or train without {FLAG}"
            )
    # The workers read the model too, and run in other working directories.
    return dataclasses.replace(flags, init_from=resolve_model(flags.init_from), **inherited)


def load_base_weights(flags: TrainFlags, sha256: str) -> dict[str, Tensor]:
    """Return the weights and normalization statistics to start from, on the CPU.

    Raises:
        InputError: the model is damaged, or no longer the one of `sha256`.
    """
    folder = resolve_model(flags.init_from)
    model, _ = load_model(folder, FLAG, sha256)
    return model.state_dict()


def warn_on_leakage(base_model: ModelManifest, cars: Sequence[Sequence[str]]) -> None:
    """Warn if the base model was trained on the val or holdout cars of (train, val, holdout).

    This is only a warning, because cars of two data sets may share names.
    """
    if known := sorted({*cars[1], *cars[2]} & set(base_model.train_cars)):
        log.warning(
            f"{FLAG} was trained on {len(known)} of the cars that score the new model (such as "
            f"{known[0]}). If these are the same cars, the scores are too high: name other cars in "
            "a file and pass it to --holdout-cars"
        )
