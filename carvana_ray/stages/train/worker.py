"""One training worker: Ray Train's side of `training.loop`."""

import dataclasses
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from carvana_ray import storage
from carvana_ray.checkpoints import train_state
from carvana_ray.runtime.torch_trace import PROFILE_DIR, Trace
from carvana_ray.stages.train.assemble_batches import BatchSpec, steps_per_block
from carvana_ray.stages.train.checkpoint_writer import CheckpointWriter
from carvana_ray.stages.train.keep_on_device import keep_on_device
from carvana_ray.stages.train.plan import TrainJob
from carvana_ray.stages.train.progress_actor import progress_sender
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.device_cache import CachePlan
from carvana_ray.training.finetune import load_base_weights
from carvana_ray.training.fused_model import FusedModelWithLoss, with_loss
from carvana_ray.training.graph import capture
from carvana_ray.training.loop import train
from carvana_ray.training.prefetch import Arrays, prefetch_to_device
from carvana_ray.training.pretrained import load_published
from carvana_ray.training.state import ModelWithLoss, TrainState, build_model, init_state
from carvana_ray.training.step import WorkerContext
from carvana_ray.unet.network import UNet

SWITCH_S = 0.0005  # Python's default of 5 ms is a third of a step


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train in one worker; Ray Train calls this with "job", "spec" and "cache_bytes".

    The stream of batches starts first, because it may wait for the images to be decoded while the
    network is built and its kernels are loaded.
    """
    job: TrainJob = config["job"]
    spec: BatchSpec = config["spec"]
    # The threads that fetch batches must not keep the main thread from launching kernels.
    sys.setswitchinterval(SWITCH_S)
    torch.set_num_threads(job.workers.cpus)
    context = ray.train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    plan = dataclasses.replace(spec.plan, workers=count)
    device = get_device()
    saved, _ = train_state.load_latest(job.checkpoint_dir, job.network)
    done = saved["epoch"] if saved else 0
    if done == plan.epochs:  # the worker was restarted after the last epoch
        return
    steps = steps_per_block(plan.per_worker, job.grid)
    blocks = _own_blocks(_all_blocks(plan.per_worker * steps), done, rank, plan)
    streamed = prefetch_to_device(blocks, plan.per_worker, device)
    worker = WorkerContext(
        device=device,
        count=count,
        all_reduce=_all_reduce,
        clock=time.perf_counter,
        progress=_on_step(job, spec) if rank == 0 else lambda done: None,
    )
    state = _build_state(job, plan, worker, saved)
    cache = CachePlan(
        plan=plan, recipe=job.recipe, epoch=done, rank=rank, grid=job.grid, block=steps
    )
    batches = keep_on_device(streamed, cache, spec, device, config["cache_bytes"])
    writer = CheckpointWriter(job, rank)
    train(state, batches, plan, worker, writer.on_epoch_end)
    writer.finish()
    if job.flags.profile and rank == 0:
        uri = storage.join(job.out, PROFILE_DIR, "train-data.txt")
        stats = ray.train.get_dataset_shard("batches").stats()
        storage.write_atomic(uri, stats.encode(), replace=True)


def _all_blocks(length: int) -> Generator[Arrays]:
    """Yield the blocks, of `length` images, of this worker's stream.

    The first one starts the stream. Ray Train's two actors for it take seconds to start; on a GPU
    this runs in a thread, while the network is built.
    """
    shard = ray.train.get_dataset_shard("batches")
    yield from shard.iter_batches(batch_size=length, prefetch_batches=2, batch_format="numpy")


def _own_blocks(blocks: Any, epoch: int, rank: int, plan: BatchPlan) -> Generator[Arrays]:
    """Yield the blocks from `epoch` on.

    Raises:
        RuntimeError: the stream is that of another worker, or begins after `epoch`.
    """
    for index, block in enumerate(blocks):
        first_epoch, owner = block["epoch"][0], block["rank"][0]
        if owner != rank or (index == 0 and first_epoch > epoch):
            raise RuntimeError(
                f"worker {rank}, epoch {epoch}: received the batches of worker {owner}, epoch "
                f"{first_epoch}"
            )
        length = len(block["weight"])
        if length % plan.per_worker:
            raise RuntimeError(f"worker {rank}: {length} images in batches of {plan.per_worker}")
        skip = int(np.searchsorted(block["epoch"], epoch))
        if skip < length:
            yield {name: block[name][skip:] for name in block if name not in ("epoch", "rank")}


def _build_state(
    job: TrainJob, plan: BatchPlan, worker: WorkerContext, saved: dict[str, Any] | None
) -> TrainState:
    """Return the state to train from: the checkpoint's, the base model's or a new one."""
    flags, on_gpu = job.flags, worker.device.type == "cuda"
    network = _build_network(job, is_new=not saved)
    module: ModelWithLoss | FusedModelWithLoss
    if flags.compile == "on":
        module = ModelWithLoss(network, job.recipe.edge_weight).to(worker.device)
        torch._dynamo.config.suppress_errors = True  # run eagerly what cannot be compiled
        module.compile()
    else:
        module = with_loss(network, worker.device, job.recipe.edge_weight)
    # On GPUs `step.sum_gradients` takes the place of DDP, whose hooks a graph cannot record.
    # `loop.average_statistics` synchronizes the buffers, once per epoch.
    options = {"broadcast_buffers": False}
    wrapped = module if on_gpu else prepare_model(module, parallel_strategy_kwargs=options)
    total_steps = plan.epochs * plan.train_steps
    state = init_state(module, wrapped, job.recipe, flags.resolved_learning_rate, total_steps)
    if saved:
        state.load_state_dict(saved)
    if on_gpu:  # loads the kernels while other processes decode the images
        worker.all_reduce(torch.zeros(1, device=worker.device))  # connects the workers
        capture(state, _blank_batch(job, plan.per_worker, worker.device), worker)
    return state


def _build_network(job: TrainJob, is_new: bool) -> UNet:
    """Return the network; a new one with the weights that training starts from.

    A checkpoint already continues from these weights.
    """
    flags, base_model = job.flags, job.run.base_model
    network = build_model(flags.base, job.recipe, flags.seed, flags.encoder)
    if is_new and base_model:
        network.load_state_dict(load_base_weights(flags, base_model.sha256))
    elif is_new:
        load_published(network)
    return network


def _blank_batch(job: TrainJob, size: int, device: torch.device) -> dict[str, torch.Tensor]:
    blank = torch.zeros(size, *job.grid, dtype=torch.uint8, device=device)
    batch = {"image": blank, "soft_mask": blank, "weight": torch.ones(size, device=device)}
    if job.recipe.affine_augment:
        return {**batch, "affine": torch.eye(2, 3, device=device).repeat(size, 1, 1)}
    return {**batch, "image": blank.float()}


def _all_reduce(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all workers."""
    total = value.detach().clone()
    if torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def _on_step(job: TrainJob, spec: BatchSpec) -> Callable[[int], None]:
    """Return the function called after each step: it reports progress and advances the trace."""
    send = progress_sender(spec.progress)
    trace = Trace(storage.join(job.out, PROFILE_DIR), "train") if job.flags.profile else None

    def on_step(done: int) -> None:
        send(done)
        if trace:
            trace.step()

    return on_step
