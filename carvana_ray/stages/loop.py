"""One training worker: Ray's side of `training.train`."""

import functools
import time
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from carvana_ray import course as courses
from carvana_ray import states, training
from carvana_ray.batches import BatchPlan
from carvana_ray.config import RECIPES
from carvana_ray.stages.gauges import set_wait
from carvana_ray.stages.watch import Teller


def loop(settings: dict[str, Any]) -> None:
    """Train in one worker: Ray's side of `training.train`."""
    flags, folder = settings["flags"], settings["folder"]
    context = ray.train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    plan = courses.shared(settings["plan"], count)
    torch.set_num_threads(settings["threads"])
    device = get_device()
    recipe = RECIPES[flags.recipe]
    model = training.build(flags.base, recipe, flags.seed).to(device)
    state = training.start(
        model, prepare_model(model), recipe, flags.rate, plan.epochs * plan.train_steps
    )
    saved, _ = states.newest(folder, flags.base, recipe.norm)
    if saved:
        state.load_state_dict(saved)
    if state.epoch == plan.epochs:  # a failure after the last epoch
        return
    worker = training.Worker(
        device=device,
        count=count,
        add_up=functools.partial(_add_up, count=count),
        clock=time.perf_counter,
        progress=Teller(settings["board"] if rank == 0 else None),
    )
    batches = ray.train.get_dataset_shard("batches").iter_torch_batches(
        batch_size=plan.share, prefetch_batches=2, device=device
    )

    def report(state: training.State) -> None:
        """Write the epoch's state, from the first worker, and tell Ray Train its row."""
        if rank == 0:
            states.write(folder, state.state_dict(), flags.base, recipe.norm)
            states.prune(folder, best=int(courses.best_row(state.history)["epoch"]))
            set_wait("train", state.history[-1]["data_wait_fraction"])
        ray.train.report(dict(state.history[-1]))

    training.train(state, _checked(batches, state.epoch, rank, plan), plan, worker, report)


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
        if len(batch["weight"]) != plan.share:
            raise RuntimeError(f"worker {rank}: a batch of {len(batch['weight'])} pictures")
        if place >= skip:
            yield batch


def _add_up(value: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum of a tensor over all workers."""
    total = value.detach().clone()
    if count > 1:
        torch.distributed.all_reduce(total)
    return total
