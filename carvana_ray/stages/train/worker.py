"""One training worker: Ray's side of `training.train`."""

import copy
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from carvana_ray import storage
from carvana_ray.checkpoints import train_state as states
from carvana_ray.config.flags import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.torch_trace import Trace
from carvana_ray.stages.ray_metrics import set_wait
from carvana_ray.stages.train.assemble_batches import steps_per_block
from carvana_ray.stages.train.progress_actor import ProgressSender
from carvana_ray.training import finetune
from carvana_ray.training import loop as training
from carvana_ray.training import prefetch as transfer
from carvana_ray.training import run as courses
from carvana_ray.training import state as learner
from carvana_ray.training import tensorboard as events
from carvana_ray.training.batch_plan import BatchPlan

log = logging.getLogger(__name__)

# Pictures a worker from which on compiling pays: it takes 20 to 25 s with nothing in its cache, and
# saves 0.2 ms a picture (one H200, default network, 2026-11-22).
COMPILE_FROM = 100_000
SWITCH_S = 0.0005  # Python's own 5 ms are a third of a step


def train_loop_per_worker(settings: dict[str, Any]) -> None:
    """Train in one worker: Ray's side of `training.train`.

    Longer than a screen, since what starts when matters: the stream of batches first, which waits
    for the pictures by itself, then the network, then its kernels.
    """
    flags, folder = settings["flags"], settings["folder"]
    marks = [(time.time(), "the loop begins")]
    # Threads that fetch batches must not keep the one that launches kernels from the interpreter.
    sys.setswitchinterval(SWITCH_S)
    context = ray.train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    plan = courses.with_workers(settings["plan"], count)
    torch.set_num_threads(settings["threads"])
    device = get_device()
    recipe = RECIPES[flags.recipe]
    saved, _ = states.load_latest(folder, learner.unet_config(flags.base, recipe))
    done = saved["epoch"] if saved else 0
    if done == plan.epochs:  # a failure after the last epoch
        return
    shard = ray.train.get_dataset_shard("batches")
    blocks = shard.iter_batches(
        batch_size=plan.per_worker * steps_per_block(plan.per_worker, settings["grid"]),
        prefetch_batches=2,
        batch_format="numpy",
    )
    stream = transfer.prefetch_to_device(
        _own_blocks(blocks, done, rank, plan), plan.per_worker, device
    )
    network = learner.build_model(flags.base, recipe, flags.seed)
    if settings["init"] and not saved:  # states have gone on from these weights already
        network.load_state_dict(finetune.load_base_weights(flags, settings["init"]))
    scored = learner.ModelWithLoss(network).to(device)
    if compiles(flags, plan, device):
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        scored.compile()
    # Statistics of normalization: see `training.share_statistics`.
    wrapped = prepare_model(scored, parallel_strategy_kwargs={"broadcast_buffers": False})
    state = learner.init_state(scored, wrapped, recipe, flags.rate, plan.epochs * plan.train_steps)
    if saved:
        state.load_state_dict(saved)
    if device.type == "cuda":  # while others decode the pictures
        learner.warm_up(
            state, _blank(plan.per_worker, settings["grid"], recipe.affine_augment, device)
        )
    marks.append((time.time(), "warm"))
    profile = settings["profile"] if rank == 0 else ""
    worker = training.WorkerContext(
        device=device,
        count=count,
        all_reduce=functools.partial(_add_up, count=count),
        clock=time.perf_counter,
        progress=_progress(settings["board"] if rank == 0 else None, profile),
    )
    keeper = CheckpointWriter(folder, flags, rank, settings["events"])
    training.train(state, stream, plan, worker, keeper.on_epoch_end)
    marks.append((time.time(), "trained"))
    keeper.finish()
    if profile:
        text = "".join(f"{at:.2f} {what}\n" for at, what in marks) + shard.stats()
        storage.write_atomic(storage.join(profile, "train-data.txt"), text.encode(), replace=True)


def _progress(board: Any, profile: str) -> Callable[[int], None]:
    """Return what is called after each step: it tells the board, and a trace if there is one."""
    tell, trace = ProgressSender(board), Trace(profile, "train") if profile else None

    def progress(done: int) -> None:
        tell(done)
        if trace:
            trace.step()

    return progress


def compiles(flags: TrainFlags, plan: BatchPlan, device: torch.device) -> bool:
    """Return whether the network is compiled: where it is asked for, or pays."""
    if flags.compile != "auto":
        return flags.compile == "on"
    ahead = plan.epochs * plan.train // plan.workers
    return device.type == "cuda" and ahead >= COMPILE_FROM


def _blank(share: int, grid: tuple[int, int], jitter: bool, device: torch.device) -> learner.Batch:
    batch = {
        "image": torch.zeros(share, *grid, device=device),
        "share": torch.zeros(share, *grid, dtype=torch.uint8, device=device),
        "weight": torch.ones(share, device=device),
    }
    if jitter:
        batch["image"] = batch["image"].byte()
        batch["warp"] = torch.eye(2, 3, device=device).repeat(share, 1, 1)
    return batch


class CheckpointWriter:
    """Writes the state of each epoch while the next one is trained, and tells Ray Train its row.

    An epoch is told when its state is on disk: what Ray knows of can be gone on from.
    """

    def __init__(self, folder: str, flags: TrainFlags, rank: int, events_folder: str) -> None:
        self._folder, self._rank = folder, rank
        self._design = learner.unet_config(flags.base, RECIPES[flags.recipe])
        self._events = events_folder
        if self._events:
            events.require_writer()  # it may be missing on this node
        self._writing: Future[None] | None = None
        self._row: learner.Row = {}

    def on_epoch_end(self, state: learner.TrainState) -> None:
        """Take the state after an epoch."""
        self.finish()
        self._row = dict(state.history[-1])
        if self._rank == 0:
            set_wait("train", self._row["data_wait_fraction"])
            kept = _on_cpu(state.state_dict())
            self._writing = run_in_background(lambda: self._write(kept))

    def finish(self) -> None:
        """Wait for the state that is being written, if any. Raises what went wrong with it."""
        if self._writing:
            self._writing.result()
            self._writing = None
        if self._row:
            ray.train.report(self._row)
            self._row = {}

    def _write(self, state: dict[str, Any]) -> None:
        states.save(self._folder, state, self._design)
        states.prune(self._folder, best=int(courses.best_epoch(state["history"])["epoch"]))
        if self._events:
            events.write_missing(self._events, state["history"], fresh=True)


def _on_cpu(value: Any) -> Any:
    """Return a copy of a state that training does not change any more."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, _on_cpu(one)) for key, one in value.items())
    if isinstance(value, list):
        return [_on_cpu(one) for one in value]
    return copy.copy(value)


def _own_blocks(blocks: Any, epoch: int, rank: int, plan: BatchPlan) -> Iterator[transfer.Arrays]:
    """Yield the blocks from `epoch` on; fail if they are not those of this worker."""
    skip = 0
    for place, block in enumerate(blocks):
        if place == 0:
            found, owner = int(block["epoch"][0]), int(block["rank"][0])
            if found > epoch or owner != rank:
                raise RuntimeError(
                    f"worker {rank}, epoch {epoch}: was given the batches of worker {owner}, epoch "
                    f"{found}"
                )
            skip = (epoch - found) * plan.steps_per_epoch * plan.per_worker
        length = len(block["weight"])
        if length % plan.per_worker:
            raise RuntimeError(f"worker {rank}: {length} pictures in batches of {plan.per_worker}")
        if skip < length:
            names = [name for name in block if name not in ("epoch", "rank")]
            yield {name: block[name][skip:] for name in names}
        skip = max(0, skip - length)


def _add_up(value: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum of a tensor over all workers."""
    total = value.detach().clone()
    if count > 1:
        torch.distributed.all_reduce(total)
    return total
