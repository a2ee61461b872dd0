"""The training stage: images and masks in, a model folder out.

plan       list the pairs, split the cars, plan the batches              plan.py
run        decode all pairs once, into Ray's object store                dataset.decode_pairs
           stream batches to the workers, for all epochs                 dataset.batch_stream
           start the workers, restart them after a failure               trainer.py
           keep the images of its first epoch, if a GPU has space        keep_on_device.py
           train; write a checkpoint after each epoch                    worker.py
publish    write the best epoch as model/, and the curves                publish.py
"""

import dataclasses
import json
import logging
import tempfile
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray

from carvana_ray import config, storage
from carvana_ray.checkpoints import train_state
from carvana_ray.checkpoints.manifest import MANIFEST
from carvana_ray.checkpoints.model import describe_network
from carvana_ray.config import cli
from carvana_ray.data import quarantine
from carvana_ray.data.listing import log_skipped
from carvana_ray.errors import InputError
from carvana_ray.runtime import preflight, signals
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.train.assemble_batches import BatchSpec
from carvana_ray.stages.train.dataset import decode_pairs
from carvana_ray.stages.train.log_forecast import log_training, warn_of_small_store
from carvana_ray.stages.train.plan import TrainJob, check_run, is_finished, plan_job
from carvana_ray.stages.train.progress_actor import poll_progress, start_progress_actor
from carvana_ray.stages.train.publish import load_published, publish_curves, publish_model
from carvana_ray.stages.train.trainer import start_training, wait_for_training
from carvana_ray.training import finetune
from carvana_ray.training.loop import DivergedError
from carvana_ray.training.run import TrainingRun, drop_bad_pairs, summarize

log = logging.getLogger(__name__)


def check(flags: config.TrainFlags) -> TrainingRun:
    """Return the planned run, and log how long it takes on this machine; raises as `check_run`."""
    run = check_run(flags)
    if not is_finished(storage.join(storage.resolve(flags.out), "model"), run):
        log_training(finetune.resolve_flags(flags, run.base_model), run)
    return run


def run(
    flags: config.TrainFlags, cluster: ClusterResources, checked: TrainingRun | None = None
) -> dict[str, Any]:
    """Train, or resume training, and write ``OUT/model``; return the job's result.

    `checked` is the result of `check`, if it was called before.
    """
    began = time.monotonic()
    job = plan_job(flags, cluster, checked or check(flags))
    log_skipped(job.run.skipped)
    job.run.corrected.log()
    _prepare_out(job)
    if not is_finished(job.model_dir, job.run):
        skipped = _train(job)
        publish_model(job, skipped)
    manifest, history = load_published(job)
    publish_curves(job, history)
    return {
        "model": job.model_dir,
        **summarize(history),
        "skipped": len(manifest.skipped),
        "left_out": dict(job.run.skipped),
        "corrected": len(job.run.corrected.pairs),
        "corrections_left_out": dict(job.run.corrected.left_out),
        "seconds": round(time.monotonic() - began, 1),
    }


def _prepare_out(job: TrainJob) -> None:
    settings = json.dumps(cli.to_json(job.flags), indent=1).encode()
    storage.write_atomic(storage.join(job.out, "config.json"), settings, replace=True)
    if job.run.base_model:
        finetune.warn_on_leakage(job.run.base_model, job.run.cars)


def _train(job: TrainJob) -> list[str]:
    """Train until all epochs are done; return the errors of the skipped pairs."""
    saved, damaged = train_state.load_latest(job.checkpoint_dir, job.network)
    for problem in damaged:
        log.warning("skipped a checkpoint: %s", problem)
    done = saved["epoch"] if saved else 0
    _announce(job, done)
    all_pairs = np.arange(len(job.run.pairs))
    spec = BatchSpec(
        plan=job.run.plan,
        progress=start_progress_actor(),
        kept=all_pairs,
        recipe=job.recipe,
    )
    # Workers on GPUs start while the pairs are decoded. Workers on CPUs would take the CPUs that
    # decode, and with --on-bad-picture skip the batches are unknown until then.
    skips = job.flags.on_bad_picture == "skip"
    early = job.workers.use_gpu and not skips and done < job.flags.epochs
    with tempfile.TemporaryDirectory(prefix="carvana_ray-") as scratch:
        training = start_training(job, spec, scratch) if early else None
        with ray_metrics.meter("decode", len(all_pairs)) as meter:
            shared_cpus = job.cluster.cpus if early else None
            chunks, errors = decode_pairs(job.run, job.flags.downscale, meter.set, shared_cpus)
        kept, plan = drop_bad_pairs(job.flags, job.run, errors, _list_bad_pairs(job, errors))
        if done < plan.epochs:
            ray.get(spec.progress.set_chunks.remote(chunks))
            log.debug("all pairs are decoded")
            spec = dataclasses.replace(spec, plan=plan, kept=kept)
            _wait(job, spec, training or start_training(job, spec, scratch), done)
    return [error for error in errors if error]


def _list_bad_pairs(job: TrainJob, errors: list[str]) -> str:
    """Write quarantine.csv; return its URI."""
    pairs = zip(job.run.pairs, errors, strict=True)
    bad = [(image.name, error) for (image, _), error in pairs if error]
    uri = quarantine.write_faults(job.out, bad)
    if bad and job.flags.on_bad_picture == "skip":
        log.warning("%s left out, listed in %s", count_of(len(bad), "training pairs"), uri)
    return uri


def _announce(job: TrainJob, done: int) -> None:
    plan = job.run.plan
    epochs = count_of(job.flags.epochs, "epochs", done)
    summary = f"{epochs}{', each' if done else ''} of {count_of(plan.train, 'images')}"
    if plan.val:
        summary += f" and {plan.val:,} for validation"
    flags = job.flags
    network = describe_network(flags.recipe, flags.base, flags.downscale, flags.encoder)
    where = preflight.describe_workers(job.workers)
    preflight.announce("train", f"{summary}; {network}", job.out, where)
    signals.set_stop_note(lambda: stop_note(job.checkpoint_dir, job.flags.epochs))
    train, val, holdout = map(len, job.run.cars)
    cars = job.run.cars_in_words
    log.info("%s: %d to train on, %d for validation, %d held out", cars, train, val, holdout)
    if done:
        log.info("training resumes after epoch %d", done)
    h, w = job.grid
    store = int(ray.cluster_resources().get("object_store_memory", 0))
    warn_of_small_store(decoded=2 * h * w * len(job.run.pairs), store=store)


def _wait(job: TrainJob, spec: BatchSpec, training: "Future[object]", done: int) -> None:
    """Wait for the workers and show their progress.

    Raises:
        InputError: training diverged.
    """
    per_epoch = spec.plan.train_steps * spec.plan.batch
    with (
        ray_metrics.meter("train", spec.plan.epochs * per_epoch, done * per_epoch) as meter,
        poll_progress(spec.progress, meter),
    ):
        signals.set_stop_note(
            lambda: stop_note(job.checkpoint_dir, spec.plan.epochs, meter.done, per_epoch)
        )
        try:
            wait_for_training(training)
        except DivergedError as error:
            epochs = train_state.list_epochs(job.checkpoint_dir)
            last_good = train_state.epoch_dir(job.checkpoint_dir, epochs[-1]) if epochs else "none"
            raise InputError(f"{error} (last good checkpoint: {last_good})") from error
        last, _ = train_state.load_latest(job.checkpoint_dir, job.network)
        if last:
            meter.end(summarize(last["history"])["images_per_second"])


def stop_note(folder: str, epochs: int, trained: int = 0, per_epoch: int = 0) -> str:
    """Return what a training that is stopped now keeps and loses, in words.

    Args:
        folder: URI of the checkpoints.
        epochs: of the whole training.
        trained: number of images trained on, in all epochs.
        per_epoch: images of an epoch.
    """
    saved = 0
    for epoch in train_state.list_epochs(folder):  # a folder without a manifest is a draft
        if storage.exists(storage.join(train_state.epoch_dir(folder, epoch), MANIFEST)):
            saved = epoch
    lost = max(trained - saved * per_epoch, 0)
    images = count_of(lost, "images")
    if not saved:
        anew = "no epoch has ended, so nothing is saved: the same command starts anew"
        return f"{anew} ({images} lost)" if lost else anew
    again = f"; {images} of epoch {saved + 1} are trained again" if lost else ""
    return f"the same command continues after epoch {saved} of {epochs}{again}"
