"""Training: pictures and masks in, a model folder out.

pairs -> decode once -> stream of batches -> TorchTrainer workers -> checkpoints -> model/
"""

import functools
import json
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, DataConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from carvana_ray import checkpoint, config, report, storage, training
from carvana_ray import course as courses
from carvana_ray.batches import BatchPlan
from carvana_ray.config import RECIPES
from carvana_ray.course import Rows
from carvana_ray.errors import InputError
from carvana_ray.progress import Meter
from carvana_ray.stages import feed
from carvana_ray.stages.session import Cluster, Workers, share_out
from carvana_ray.stages.watch import Teller, Watch, board

log = logging.getLogger(__name__)

STATE = "state.pt"


def check(flags: config.Train) -> None:
    """Raise `InputError` if the input cannot be, as far as listing it tells."""
    courses.plan(flags, flags.workers or 1)


def run(flags: config.Train, cluster: Cluster) -> dict[str, Any]:
    """Train, or go on with training, and write ``OUT/model``; return the job's result."""
    began = time.monotonic()
    out = storage.absolute(flags.out)
    folder = storage.join(out, "model")
    workers = share_out(flags, cluster)
    course = courses.plan(flags, workers.count)
    history = _finished(folder, course.run)
    storage.publish(
        storage.join(out, "config.json"),
        json.dumps(config.to_json(flags), indent=1).encode(),
        replace=True,
    )
    if history is None:
        history = _fit(flags, course, workers, out)
    for name, image in report.curves(history).items():
        storage.publish(storage.join(out, name), image, replace=True)
    return {
        "model": folder,
        **courses.summary(history),
        "seconds": round(time.monotonic() - began, 1),
    }


def _finished(folder: str, run_name: str) -> Rows | None:
    """Return the history of the model that is there, if it is the one that this run makes."""
    if not storage.exists(storage.join(folder, checkpoint.MANIFEST)):
        return None
    try:
        _, manifest = checkpoint.read_model(folder)
    except InputError as error:  # say a run that died between weights and manifest
        log.warning("%s: it will be trained again", error)
        return None
    return checkpoint.read_history(folder) if manifest.run == run_name else None


def _fit(flags: config.Train, course: courses.Course, workers: Workers, out: str) -> Rows:
    """Run Ray Train, write the model folder, return the history."""
    plan = course.plan
    with Meter("decode", len(course.pairs)) as meter:
        chunks = feed.decode(
            course.pairs, course.pictures, course.masks, flags.downscale, course.size, meter.set
        )
    storage_path = storage.join(out, "checkpoints")
    here = board()
    trainer = TorchTrainer(
        loop,
        train_loop_config={
            "flags": flags,
            "plan": plan,
            "board": here,
            "threads": workers.cpus,
        },
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
        ),
        run_config=RunConfig(
            name=course.run,
            storage_path=storage_path,
            checkpoint_config=CheckpointConfig(
                num_to_keep=1,  # the best one; Ray keeps the last one besides
                checkpoint_score_attribute="val_dice" if plan.val else "epoch",
            ),
        ),
        # A function, not a data set: Ray calls it whenever it starts the workers, also after a
        # failure, and the stream then begins at the epoch that they go on with.
        datasets={
            "batches": functools.partial(
                _stream,
                plan=plan,
                chunks=chunks,
                flip=RECIPES[flags.recipe].flip,
                run_folder=storage.join(storage_path, course.run),
            )
        },
        dataset_config=DataConfig(enable_shard_locality=False, execution_options=_in_order()),
    )
    an_epoch = plan.train_steps * plan.batch
    before = _epochs_done(storage.join(storage_path, course.run)) * an_epoch
    with Meter("train", plan.epochs * an_epoch, before) as meter, Watch(meter, here):
        result = _in_thread(trainer.fit)
        history = _write_model(flags, course, result, storage.join(out, "model"))
        meter.end(courses.summary(history)["images_per_second"])
    return history


def _in_thread(fit: Callable[[], ray.train.Result]) -> ray.train.Result:
    """Run Ray Train beside the main thread; there it would take over Ctrl-C, and keep it.

    Raises:
        InputError: the training diverged.
    """
    done: list[ray.train.Result | Exception] = []

    def run() -> None:
        try:
            done.append(fit())
        except Exception as error:  # whatever it is, it is raised below
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)  # a join without end would not let signals through
    if isinstance(done[0], Exception):
        for failure in getattr(done[0], "worker_failures", {}).values():
            if found := re.search(rf"{training.Diverged.__name__}: (.*)", str(failure)):
                raise InputError(found[1]) from done[0]
        raise done[0]
    return done[0]


def _in_order() -> ray.data.ExecutionOptions:
    options = ray.data.ExecutionOptions()
    options.preserve_order = True
    return options


def _stream(plan: BatchPlan, chunks: list[Any], flip: bool, run_folder: str) -> ray.data.Dataset:
    return feed.stream(plan, chunks, flip, first_epoch=_epochs_done(run_folder))


def _epochs_done(run_folder: str) -> int:
    """Return the epochs that the latest checkpoint of a run holds, 0 if there is none."""
    if not storage.exists(storage.join(run_folder, "checkpoint_manager_snapshot.json")):
        return 0
    metrics = ray.train.Result.from_path(run_folder).metrics
    return int(metrics["epoch"]) if metrics else 0


def _write_model(
    flags: config.Train, course: courses.Course, result: ray.train.Result, folder: str
) -> Rows:
    """Write the model folder of a run that is over; return its history."""
    last = _read_state(result.checkpoint)
    history: Rows = last["history"]
    chosen = last
    if courses.best_row(history) is not history[-1]:
        chosen = _read_state(result.get_best_checkpoint("val_dice", "max"))
    weights = checkpoint.to_bytes(chosen["model"])
    manifest = checkpoint.Manifest(
        sha256=checkpoint.digest(weights),
        base=flags.base,
        norm=RECIPES[flags.recipe].norm,
        downscale=flags.downscale,
        height=course.size[0],
        width=course.size[1],
        training=config.to_json(flags),
        run=course.run,
        holdout_cars=course.cars[2],
        val_cars=course.cars[1],
        metrics=chosen["history"][-1],
    )
    checkpoint.write_model(folder, weights, manifest, history)
    return history


def _read_state(saved: Checkpoint | None) -> dict[str, Any]:
    if saved is None:
        raise RuntimeError("training ended without a checkpoint")
    with saved.as_directory() as folder:
        return checkpoint.from_bytes(Path(folder, STATE).read_bytes())


def loop(settings: dict[str, Any]) -> None:
    """Train in one worker: Ray's side of `training.train`."""
    flags, plan = settings["flags"], settings["plan"]
    context = ray.train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(settings["threads"])
    device = get_device()
    recipe = RECIPES[flags.recipe]
    model = training.build(flags.base, recipe, flags.seed).to(device)
    state = training.start(
        model, prepare_model(model), recipe, flags.rate, plan.epochs * plan.train_steps
    )
    if saved := ray.train.get_checkpoint():
        state.load_state_dict(_read_state(saved))
    worker = training.Worker(
        device=device,
        count=count,
        add_up=functools.partial(_add_up, count=count),
        clock=time.perf_counter,
        progress=Teller(settings["board"] if rank == 0 else None),
    )
    batches = ray.train.get_dataset_shard("batches").iter_torch_batches(
        batch_size=plan.batch // count, prefetch_batches=2, device=device
    )
    training.train(state, _checked(batches, state.epoch, rank, plan), plan, worker, _report)


def _checked(batches: Any, epoch: int, rank: int, plan: BatchPlan) -> Any:
    """Yield the batches from `epoch` on; fail if they are not those of this worker."""
    for place, batch in enumerate(batches):
        if place == 0:  # once: to look at a number on a GPU makes the CPU wait for it
            found, owner = int(batch["epoch"][0]), int(batch["rank"][0])
            if found > epoch or owner != rank:
                raise RuntimeError(
                    f"worker {rank}, epoch {epoch}: was given the batches of worker {owner}, epoch "
                    f"{found}"
                )
            skip = (epoch - found) * (plan.train_steps + plan.val_steps)
        if len(batch["weight"]) != plan.batch // plan.workers:
            raise RuntimeError(f"worker {rank}: a batch of {len(batch['weight'])} pictures")
        if place >= skip:
            yield batch


def _add_up(value: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum of a tensor over all workers."""
    total = value.detach().clone()
    if count > 1:
        torch.distributed.all_reduce(total)
    return total


def _report(state: training.State) -> None:
    """Hand the epoch's row and, from the first worker, a checkpoint to Ray Train."""
    with tempfile.TemporaryDirectory() as folder:
        saved = None
        if ray.train.get_context().get_world_rank() == 0:
            Path(folder, STATE).write_bytes(checkpoint.to_bytes(state.state_dict()))
            saved = Checkpoint.from_directory(folder)
        ray.train.report(dict(state.history[-1]), checkpoint=saved)
