"""Where a training step's time goes, with one worker and with several on one machine.

    python benchmarks/step_parts.py --recipe best --workers 2

Trains on one random batch that stays on each GPU: no data, no job, no epochs. So the rate of
several workers to that of one is the most that a job can reach. Each worker prints one JSON line:
milliseconds of a step, those in which the CPU launches it, and those of each part by CUDA events.
"""

import argparse
import json
import os
import time
from collections import defaultdict

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES
from carvana_ray.data import layout
from carvana_ray.training.fused_model import with_loss
from carvana_ray.training.graph import capture
from carvana_ray.training.loop import train_step
from carvana_ray.training.state import Batch, TrainState, build_model, init_state
from carvana_ray.training.step import WorkerContext

PARTS = {1: ["step"], 5: ["forward", "reduce_sums", "backward", "sum_gradients", "judge"]}
WARM_UPS, STEPS, TIMED_PARTS = 50, 600, 100


def all_reduce(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all workers."""
    total = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def random_batch(recipe: str, size: int, device: torch.device) -> Batch:
    """Return a batch of noise with a rectangle as car."""
    h, w = images.grid_size(layout.HEIGHT, layout.WIDTH, RECIPES[recipe].downscale)
    gray = torch.randint(0, 256, (size, h, w), dtype=torch.uint8, device=device)
    soft_mask = torch.zeros_like(gray)
    soft_mask[:, h // 4 : h // 2, w // 4 : w // 2] = 255
    batch = {"image": gray, "soft_mask": soft_mask, "weight": torch.ones(size, device=device)}
    if RECIPES[recipe].affine_augment:
        return {**batch, "affine": torch.eye(2, 3, device=device).repeat(size, 1, 1)}
    return {**batch, "image": images.standardize(gray)}


def time_parts(state: TrainState, batch: Batch) -> dict[str, float]:
    """Return the milliseconds of each part of a recorded step, by CUDA events."""
    steps = state.captured
    assert steps, "the step could not be recorded"
    names = ["copy", *PARTS[len(steps._parts)], "optimizer"]
    total: dict[str, float] = defaultdict(float)
    for _ in range(TIMED_PARTS):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(names) + 1)]
        events[0].record()
        steps._copy(batch)
        for part, event in zip(steps._parts, events[1:], strict=False):
            event.record()
            part()
        events[-2].record()
        state.scaler._per_optimizer_states[id(state.optimizer)] = {**steps._unscaled}
        state.scaler.step(state.optimizer)
        state.scaler.update()
        events[-1].record()
        torch.cuda.synchronize()
        for name, start, end in zip(names, events, events[1:], strict=False):
            total[name] += start.elapsed_time(end) / TIMED_PARTS
    return {name: round(value, 3) for name, value in total.items()}


def run(rank: int, count: int, recipe_name: str, size: int) -> None:
    """Train as one of `count` workers, and print what it took."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    if count > 1:
        dist.init_process_group("nccl", rank=rank, world_size=count)
    worker = WorkerContext(
        device=device,
        count=count,
        all_reduce=all_reduce,
        clock=time.perf_counter,
        progress=lambda done: None,
    )
    recipe = RECIPES[recipe_name]
    module = with_loss(build_model(32, recipe, 0), device, recipe.edge_weight)
    steps = WARM_UPS + STEPS + TIMED_PARTS
    state = init_state(module, module, recipe, recipe.learning_rate, steps)
    batch = random_batch(recipe_name, size, device)
    all_reduce(torch.zeros(1, device=device))  # connects the workers
    capture(state, batch, worker)
    for _ in range(WARM_UPS):
        train_step(state, batch, worker)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        train_step(state, batch, worker)
    launched = time.perf_counter() - start
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    row = {
        "recipe": recipe_name,
        "workers": count,
        "rank": rank,
        "images_per_second": round(count * size * STEPS / seconds),
        "step_ms": round(1000 * seconds / STEPS, 3),
        "launched_ms": round(1000 * launched / STEPS, 3),
        "parts_ms": time_parts(state, batch),
    }
    print(json.dumps({"benchmark": "step_parts", **row}), flush=True)
    if count > 1:
        dist.destroy_process_group()


def main() -> None:
    """Start the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=["default", "best"], default="default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8, help="images of each worker")
    parser.add_argument("--port", default="29601", help="free port of this machine")
    flags = parser.parse_args()
    if torch.cuda.device_count() < flags.workers:
        parser.error(
            f"--workers {flags.workers}: this machine has {torch.cuda.device_count()} GPUs"
        )
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=flags.port)
    rest = flags.workers, flags.recipe, flags.batch_size
    if flags.workers == 1:
        run(0, *rest)
    else:
        multiprocessing.spawn(run, rest, flags.workers)


if __name__ == "__main__":
    main()
