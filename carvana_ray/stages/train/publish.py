"""The results of a training job: the model folder, the curves and the event files."""

import logging
from typing import Any

from carvana_ray import storage
from carvana_ray.checkpoints import model, train_state
from carvana_ray.config import cli
from carvana_ray.errors import IncompleteError, InputError, StorageAccessError
from carvana_ray.report.training_curves import draw_curves
from carvana_ray.stages.train.plan import TrainJob
from carvana_ray.training import tensorboard
from carvana_ray.training.run import Rows, best_epoch

log = logging.getLogger(__name__)


def publish_model(job: TrainJob, skipped: list[str]) -> None:
    """Write the model folder of a run that has ended, from its best epoch.

    Raises:
        IncompleteError: another training removed or damaged the last checkpoint.
    """
    last, damaged = train_state.load_latest(job.checkpoint_dir, job.network)
    if last is None or last["epoch"] != job.flags.epochs:
        raise IncompleteError(
            f"{job.checkpoint_dir}: the last epoch is missing ({'; '.join(damaged) or 'removed'}); "
            "end other trainings with this --out, then run again"
        )
    best = _load_best(job, last)
    weights = model.to_bytes(best["model"])
    base_model, (train_cars, val_cars, holdout_cars) = job.run.base_model, job.run.cars
    manifest = model.ModelManifest(
        sha256=model.sha256(weights),
        unet=job.network,
        tta_flip=job.recipe.tta_flip,
        downscale=job.flags.downscale,
        height=job.run.size[0],
        width=job.run.size[1],
        training=cli.to_json(job.flags),
        run=job.run.run_id,
        holdout_cars=holdout_cars,
        val_cars=val_cars,
        metrics=best["history"][-1],
        skipped=skipped,
        started_from=[base_model.sha256, *base_model.started_from] if base_model else [],
        train_cars=sorted({*train_cars, *(base_model.train_cars if base_model else ())}),
    )
    model.save_model(job.model_dir, weights, manifest, last["history"])


def _load_best(job: TrainJob, last: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint of the best epoch; the last one if that cannot be used."""
    best = best_epoch(last["history"])
    if best is last["history"][-1]:
        return last
    try:
        state = train_state.load(job.checkpoint_dir, int(best["epoch"]), job.network)
        if state["history"][-1] == best:
            return state
        error = InputError(f"{job.checkpoint_dir}: epoch {state['epoch']} is of another training")
    except StorageAccessError:
        raise
    except InputError as damage:
        error = damage
    log.warning("%s: the model is that of the last epoch instead of the best", error)
    return last


def load_published(job: TrainJob) -> tuple[model.ModelManifest, Rows]:
    """Return the manifest and the history of the model folder.

    Raises:
        IncompleteError: the model there is not, or not only, of this run: another training with the
            same --out has written there meanwhile.
    """
    try:
        _, manifest = model.load_model(job.model_dir, "--out")
        history = model.load_history(job.model_dir, manifest)
        problem = "" if manifest.run == job.run.run_id else "the model of another run"
    except StorageAccessError:
        raise
    except InputError as error:
        problem = str(error)
    if problem:
        raise IncompleteError(
            f"--out {job.model_dir}: another training has written there meanwhile ({problem}); end "
            "it or use another --out, then run again"
        )
    return manifest, history


def publish_curves(job: TrainJob, history: Rows) -> None:
    """Write the curves of the history, and with ``--tensorboard`` its event files."""
    if job.flags.tensorboard:
        tensorboard.write_missing(job.tensorboard_dir, history)
    for name, png in draw_curves(history).items():
        storage.write_atomic(storage.join(job.out, name), png, replace=True)
