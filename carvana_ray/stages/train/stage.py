"""The training stage: images and masks in, a model folder out.

    plan       list the pairs, split the cars, plan the batches              plan.py
    run        decode all pairs once, into Ray's object store                dataset.decode_pairs
               stream batches to the workers, for all epochs                 dataset.batch_stream
               start the workers, restart them after a failure               trainer.py
               train; write a checkpoint after each epoch                    worker.py
    publish    write the best epoch as model/, and the curves                publish.py

Checkpoints are written and selected by `checkpoints.train_state`, not by Ray Train. Ray Train
restores the newest checkpoint without verifying it, and fails to start if one is missing.
"""

import functools
import json
import logging
import tempfile
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from carvana_ray import config, images, storage
from carvana_ray.checkpoints import train_state
from carvana_ray.checkpoints.model import describe_network, load_history, load_manifest
from carvana_ray.config import cli
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError
from carvana_ray.runtime import preflight
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.torch_trace import PROFILE_DIR
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.train.assemble_batches import BatchSpec
from carvana_ray.stages.train.dataset import decode_pairs
from carvana_ray.stages.train.plan import TrainJob, check, is_finished, plan_job
from carvana_ray.stages.train.progress_actor import poll_progress, start_progress_actor
from carvana_ray.stages.train.publish import publish_curves, publish_model
from carvana_ray.stages.train.trainer import start_training, wait_for_training
from carvana_ray.stages.train.worker import WorkerConfig
from carvana_ray.training import finetune
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.loop import DivergedError
from carvana_ray.training.run import TrainingRun, drop_bad_pairs, summarize

log = logging.getLogger(__name__)


def run(
    flags: config.TrainFlags, cluster: ClusterResources, checked: TrainingRun | None = None
) -> dict[str, Any]:
    """Train, or resume training, and write ``OUT/model``; return the job's result.

    Args:
        flags: the job's flags.
        cluster: resources of the cluster.
        checked: the result of `check`, if it was called before.
    """
    began = time.monotonic()
    job = plan_job(flags, cluster, checked or check(flags))
    _prepare_out(job)
    if not is_finished(job.model_dir, job.run):
        skipped = _train(job)
        publish_model(job, skipped)
    history = load_history(job.model_dir)
    publish_curves(job, history)
    return {
        "model": job.model_dir,
        **summarize(history),
        "skipped": len(load_manifest(job.model_dir).skipped),
        "seconds": round(time.monotonic() - began, 1),
    }


def _prepare_out(job: TrainJob) -> None:
    for folder in (job.out, job.model_dir):
        storage.remove_stale_temps(folder)
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
    actor = start_progress_actor()
    with tempfile.TemporaryDirectory(prefix="carvana_ray-") as scratch:
        start = functools.partial(_start, job, actor, scratch)
        # Workers on GPUs start while the pairs are decoded. Workers on CPUs would take the CPUs
        # that decode, and with --on-bad-picture skip the batches are unknown until then.
        early = (
            job.workers.use_gpu and job.flags.on_bad_picture == "fail" and done < job.flags.epochs
        )
        training = start(job.run.plan, np.arange(len(job.run.pairs))) if early else None
        with ray_metrics.meter("decode", len(job.run.pairs)) as meter:
            shared_cpus = job.cluster.cpus if early else None
            chunks, errors = decode_pairs(job.run, job.flags.downscale, meter.set, shared_cpus)
        kept, plan = drop_bad_pairs(job.flags, job.run, errors)
        if done < plan.epochs:
            ray.get(actor.set_chunks.remote(chunks))
            log.debug("all pairs are decoded")
            _wait(job, training or start(plan, kept), actor, plan, done)
    return [error for error in errors if error]


def _announce(job: TrainJob, done: int) -> None:
    plan = job.run.plan
    epochs = count_of(job.flags.epochs, "epochs", done)
    summary = f"{epochs}, each of {count_of(plan.train, 'images')}"
    if plan.val:
        summary += f" and {plan.val:,} for validation"
    network = describe_network(job.flags.recipe, job.flags.base, job.flags.downscale)
    where = preflight.describe_workers(job.workers)
    preflight.announce("train", f"{summary}; {network}", job.out, where)
    if done:
        log.info("training resumes after epoch %d", done)


def _start(
    job: TrainJob, actor: Any, scratch: str, plan: BatchPlan, kept: NDArray[np.int64]
) -> "Future[object]":
    """Start the workers on the batches of `plan`."""
    flags, base_model, recipe = job.flags, job.run.base_model, RECIPES[job.flags.recipe]
    spec = BatchSpec(
        plan=plan, progress=actor, kept=kept, flip=recipe.flip, affine=recipe.affine_augment
    )
    worker_config = WorkerConfig(
        flags=flags,
        spec=spec,
        grid=images.grid_size(*job.run.size, flags.downscale),
        threads=job.workers.cpus,
        checkpoint_dir=job.checkpoint_dir,
        base_sha256=base_model.sha256 if base_model else "",
        tensorboard_dir=job.tensorboard_dir if flags.tensorboard else "",
        profile_dir=storage.join(job.out, PROFILE_DIR) if flags.profile else "",
    )
    return start_training(worker_config, job.workers, job.cluster, len(job.run.pairs), scratch)


def _wait(
    job: TrainJob, training: "Future[object]", actor: Any, plan: BatchPlan, done: int
) -> None:
    """Wait for the workers and show their progress.

    Raises:
        InputError: training diverged.
    """
    per_epoch = plan.train_steps * plan.batch
    with (
        ray_metrics.meter("train", plan.epochs * per_epoch, done * per_epoch) as meter,
        poll_progress(actor, meter),
    ):
        try:
            wait_for_training(training)
        except DivergedError as error:
            epochs = train_state.list_epochs(job.checkpoint_dir)
            last_good = "none"
            if epochs:
                last_good = train_state.epoch_dir(job.checkpoint_dir, epochs[-1])
            raise InputError(f"{error} (last good checkpoint: {last_good})") from error
        last, _ = train_state.load_latest(job.checkpoint_dir, job.network)
        if last:
            meter.end(summarize(last["history"])["images_per_second"])
