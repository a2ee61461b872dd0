"""Training: pictures and masks in, a model folder out.

pairs -> decode once -> stream of batches -> TorchTrainer workers -> states of epochs -> model/

What training goes on from is written and chosen here (`states`), not by Ray Train: Ray hands back
the newest checkpoint without a look into it, and does not start at all where one is gone.
"""

import dataclasses
import json
import logging
import tempfile
import time
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train

from carvana_ray import config, report, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints import train_state as states
from carvana_ray.config import cli
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError, StorageAccessError
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.stages import ray_metrics as gauges
from carvana_ray.stages.train import dataset as feed
from carvana_ray.stages.train.progress_actor import ProgressPoller, board
from carvana_ray.stages.train.trainer import Fitting, wait_for_training
from carvana_ray.training import finetune
from carvana_ray.training import loop as training
from carvana_ray.training import run as courses
from carvana_ray.training import state as learner
from carvana_ray.training import tensorboard as events
from carvana_ray.training.run import Rows, TrainingRun

log = logging.getLogger(__name__)


def check(flags: config.TrainFlags) -> TrainingRun:
    """Return what will be trained on.

    Raises:
        InputError: the input cannot be, as far as listing it tells.
    """
    if flags.tensorboard:
        events.require_writer()
    init = finetune.read(flags)
    flags = finetune.resolve_flags(flags, init)
    course = courses.plan_run(flags, flags.workers or 1, init)
    out = storage.resolve(flags.out)
    begun = states.list_epochs(_run_folder(out, course))
    storage.require_writable(out)
    if init and not begun and not _finished(storage.join(out, "model"), course.run):
        finetune.load_base_weights(flags, init.sha256)  # read, to know now whether they are whole
    return course


def run(
    flags: config.TrainFlags, cluster: ClusterResources, checked: TrainingRun | None = None
) -> dict[str, Any]:
    """Train, or go on with training, and write ``OUT/model``; return the job's result.

    Args:
        flags, cluster: what to do, and where.
        checked: what `check` has returned, if it was asked already.
    """
    began = time.monotonic()
    out = storage.resolve(flags.out)
    folder = storage.join(out, "model")
    workers = allocate_workers(flags, cluster)
    course = checked or check(flags)
    flags = finetune.resolve_flags(flags, course.init)
    course = dataclasses.replace(course, plan=courses.with_workers(course.plan, workers.count))
    for place in (out, folder):
        storage.remove_stale_temps(place)
    storage.write_atomic(
        storage.join(out, "config.json"),
        json.dumps(cli.to_json(flags), indent=1).encode(),
        replace=True,
    )
    if course.init:
        finetune.record_base(flags, course.init)
        finetune.warn_on_leakage(course.init, course.cars)
    if not _finished(folder, course.run):
        skipped = _fit(flags, course, cluster, workers, out)
        _write_model(flags, course, _run_folder(out, course), folder, skipped)
    history = checkpoint.load_history(folder)
    if flags.tensorboard:
        events.write_missing(events.folder_of(out, course.run), history)
    for name, image in report.draw_curves(history).items():
        storage.write_atomic(storage.join(out, name), image, replace=True)
    return {
        "model": folder,
        **courses.summarize(history),
        "skipped": len(checkpoint.load_manifest(folder).skipped),
        "seconds": round(time.monotonic() - began, 1),
    }


def _finished(folder: str, run_name: str) -> bool:
    """Return whether the model that is there is the one that this run makes."""
    if not storage.exists(storage.join(folder, checkpoint.MANIFEST)):
        return False
    try:
        _, manifest = checkpoint.load_model(folder)
    except StorageAccessError:
        raise
    except InputError as error:  # say a run that died between weights and manifest
        log.warning("%s: it will be trained again", error)
        return False
    return manifest.run == run_name


def _run_folder(out: str, course: TrainingRun) -> str:
    return storage.join(out, "checkpoints", course.run)


def _fit(
    flags: config.TrainFlags,
    course: TrainingRun,
    cluster: ClusterResources,
    workers: WorkerAllocation,
    out: str,
) -> list[str]:
    """Run Ray Train until all epochs are done; return the pairs that were left out, and why.

    Longer than a screen, since what runs beside what is decided here.
    """
    folder = _run_folder(out, course)
    design = learner.unet_config(flags.base, RECIPES[flags.recipe])
    saved, damaged = states.load_latest(folder, design)
    for problem in damaged:
        log.warning("skipped: %s", problem)
    done = saved["epoch"] if saved else 0
    _foretell(flags, course, out, workers, done)
    if saved:
        log.info("training goes on after epoch %d", done)
    here = board()
    # Ray Train wants a place for its list of checkpoints, which stays empty: see `states`.
    with tempfile.TemporaryDirectory(prefix="carvana_ray-") as scratch:
        fitting = Fitting(flags, course, cluster, workers, folder, here, scratch)
        # Workers on GPUs start while the pictures are decoded. On CPUs they would take the CPUs
        # away, and where bad pictures are left out, nobody knows the steps before that.
        early = workers.use_gpu and flags.on_bad_picture == "fail" and done < flags.epochs
        begun = fitting.begin(course.plan, np.arange(len(course.pairs))) if early else None
        beside_them = cluster.cpus if early else None
        with gauges.meter("decode", len(course.pairs)) as meter:
            chunks, errors = feed.decode_pairs(course, flags.downscale, meter.set, beside_them)
        skipped = [error for error in errors if error]
        kept, plan = courses.drop_bad_pairs(flags, course, errors)
        if done == plan.epochs:
            return skipped
        ray.get(here.put.remote(chunks))
        log.debug("the pictures lie in memory")
        an_epoch = plan.train_steps * plan.batch
        with (
            gauges.meter("train", plan.epochs * an_epoch, done * an_epoch) as meter,
            ProgressPoller(meter, here),
        ):
            try:
                wait_for_training(begun or fitting.begin(plan, kept))
            except training.DivergedError as error:
                good = states.list_epochs(folder)
                where = states.epoch_dir(folder, good[-1]) if good else "none"
                raise InputError(f"{error} (last good checkpoint: {where})") from error
            last, _ = states.load_latest(folder, design)
            if last:
                meter.end(courses.summarize(last["history"])["images_per_second"])
    return skipped


def _foretell(
    flags: config.TrainFlags, course: TrainingRun, out: str, workers: WorkerAllocation, done: int
) -> None:
    """Say what will be trained, in one line."""
    epochs = outlook.count_of(flags.epochs, "epochs", done)
    what = f"{epochs}, each of {outlook.count_of(course.plan.train, 'pictures')}"
    if course.plan.val:
        what += f" and {course.plan.val:,} for validation"
    kind = checkpoint.describe_network(flags.recipe, flags.base, flags.downscale)
    outlook.announce("train", f"{what}; {kind}", out, outlook.describe_workers(workers))


def _write_model(
    flags: config.TrainFlags, course: TrainingRun, run: str, folder: str, skipped: list[str]
) -> None:
    """Write the model folder of a run that is over: of its epochs the best one that is good."""
    recipe = RECIPES[flags.recipe]
    design = learner.unet_config(flags.base, recipe)
    last, damaged = states.load_latest(run, design)
    if last is None or last["epoch"] != flags.epochs:
        raise RuntimeError(f"{run}: training ended without its last epoch; {damaged}")
    history: Rows = last["history"]
    chosen, best = last, courses.best_epoch(history)
    if best is not history[-1]:
        try:
            chosen = states.load(run, int(best["epoch"]), design)
        except StorageAccessError:
            raise
        except InputError as error:
            log.warning("%s: the last epoch is taken for the best one", error)
    init = course.init
    weights = checkpoint.to_bytes(chosen["model"])
    manifest = checkpoint.ModelManifest(
        sha256=checkpoint.sha256(weights),
        unet=design,
        tta_flip=recipe.tta_flip,
        downscale=flags.downscale,
        height=course.size[0],
        width=course.size[1],
        training=cli.to_json(flags),
        run=course.run,
        holdout_cars=course.cars[2],
        val_cars=course.cars[1],
        metrics=chosen["history"][-1],
        skipped=skipped,
        started_from=[init.sha256, *init.started_from] if init else [],
        train_cars=sorted({*course.cars[0], *(init.train_cars if init else ())}),
    )
    checkpoint.save_model(folder, weights, manifest, history)
