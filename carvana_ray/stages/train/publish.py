"""The results of a training job: the model folder, the curves and the event files."""

import logging
from typing import Any

from carvana_ray import report, storage
from carvana_ray.checkpoints import model, train_state
from carvana_ray.config import cli
from carvana_ray.errors import InputError, StorageAccessError
from carvana_ray.stages.train.plan import TrainJob
from carvana_ray.training import tensorboard
from carvana_ray.training.run import Rows, best_epoch

log = logging.getLogger(__name__)


def publish_model(job: TrainJob, skipped: list[str]) -> None:
    """Write the model folder of a run that has ended, from its best epoch."""
    last, damaged = train_state.load_latest(job.checkpoint_dir, job.network)
    if last is None or last["epoch"] != job.flags.epochs:
        raise RuntimeError(f"{job.checkpoint_dir}: the last epoch is missing; {damaged}")
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
    """Return the checkpoint of the best epoch; the last one if that is damaged."""
    best = best_epoch(last["history"])
    if best is last["history"][-1]:
        return last
    try:
        return train_state.load(job.checkpoint_dir, int(best["epoch"]), job.network)
    except StorageAccessError:
        raise
    except InputError as error:
        log.warning("%s: the model is that of the last epoch instead of the best", error)
        return last


def publish_curves(job: TrainJob, history: Rows) -> None:
    """Write the curves of the history, and with ``--tensorboard`` its event files."""
    if job.flags.tensorboard:
        tensorboard.write_missing(job.tensorboard_dir, history)
    for name, png in report.draw_curves(history).items():
        storage.write_atomic(storage.join(job.out, name), png, replace=True)
