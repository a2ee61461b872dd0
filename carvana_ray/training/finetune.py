"""Fine-tuning: what training takes over from a model folder, ``--init-from``.

Its network and its weights, those of normalization among them, and how it sees a picture. The
optimizer starts anew. The run is named by the hash of the weights, and its states hold all that is
needed to go on: where there are some, the model may have gone.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence

from torch import Tensor

from carvana_ray import storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config import cli
from carvana_ray.config.flags import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import FileMissingError, InputError
from carvana_ray.training import state as learner

log = logging.getLogger(__name__)

FLAG = "--init-from"
RECORD = "init.json"  # under --out: the model's folder and manifest


def read(flags: TrainFlags) -> ModelManifest | None:
    """Return the manifest of the model to start from; None where training starts anew.

    Where that model has gone, it is the manifest that `keep` has kept of it.

    Raises:
        InputError: no such model, a damaged one, or the folder that this run will write.
    """
    if not flags.init_from:
        return None
    folder = storage.resolve(flags.init_from)
    if folder == storage.join(storage.resolve(flags.out), "model"):
        raise InputError(
            f"{FLAG} {folder}: the folder that this run writes its own model to; give another --out"
        )
    if not storage.exists(storage.join(folder, checkpoint.MANIFEST)):
        try:
            kept = json.loads(storage.read(_record(flags)))
            if kept["folder"] == folder:
                return ModelManifest.from_json(kept["manifest"])
        except (FileMissingError, ValueError, TypeError, AttributeError, KeyError):
            pass  # not this run's, or damaged: then the model is what is missing
    return checkpoint.load_manifest(folder, FLAG)


def record_base(flags: TrainFlags, init: ModelManifest) -> None:
    """Write down which model a run has started from, so that it can go on without it."""
    kept = {"folder": storage.resolve(flags.init_from), "manifest": init.to_json()}
    storage.write_atomic(_record(flags), json.dumps(kept, indent=1).encode(), replace=True)


def _record(flags: TrainFlags) -> str:
    return storage.join(storage.resolve(flags.out), RECORD)


def resolve_flags(flags: TrainFlags, init: ModelManifest | None) -> TrainFlags:
    """Return the flags with what the model to start from decides, and where it is, absolute.

    Raises:
        InputError: a flag says something else, or the model is of a recipe that is not known here.
    """
    if init is None:
        return flags
    recipe = init.training.get("recipe")
    if recipe not in RECIPES or learner.unet_config(init.unet.base, RECIPES[recipe]) != init.unet:
        raise InputError(
            f"{FLAG} {flags.init_from}: its recipe is {recipe} with {init.unet}, which "
            "this version does not have; start from a model that this version trained"
        )
    decided = {"recipe": recipe, "downscale": init.downscale, "base": init.unet.base}
    for name, value in decided.items():
        asked = getattr(flags, name)
        if asked not in (None, value):
            raise InputError(
                f"{cli.flag(name)} {asked}: the model of {FLAG} has {value}, which its weights "
                f"are made for; leave {cli.flag(name)} away, or train without {FLAG}"
            )
    # Workers read the model, too, and stand in other folders.
    return dataclasses.replace(flags, init_from=storage.resolve(flags.init_from), **decided)


def load_base_weights(flags: TrainFlags, sha256: str) -> dict[str, Tensor]:
    """Return the weights to start from, with the statistics of normalization, on the CPU.

    Raises:
        InputError: they are damaged, or the model there has become another than that of `sha256`.
    """
    folder = storage.resolve(flags.init_from)
    model, manifest = checkpoint.load_model(folder, FLAG)
    if manifest.sha256 != sha256:
        raise InputError(f"{FLAG} {folder}: another model was written there; run the command again")
    return model.state_dict()


def warn_on_leakage(init: ModelManifest, cars: Sequence[Sequence[str]]) -> None:
    """Warn where cars that are to judge the new model were trained on by the one it starts from.

    A warning alone: cars of another data set may bear the same names.

    Args:
        init: of the model to start from.
        cars: (train, val, holdout).
    """
    known = sorted({*cars[1], *cars[2]} & set(init.train_cars))
    if known:
        log.warning(
            "%s has been trained on %d of the cars that are to score the new model, %s first, or "
            "on others of these names; if they are the same, scores will be too good: name cars to "
            "hold out in a file, --holdout-cars",
            FLAG,
            len(known),
            known[0],
        )
