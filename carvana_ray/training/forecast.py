"""How long a training takes on CPUs, and what would be shorter, before it starts.

A step of the real network on two small images gives the CPU time of a pixel and of a step. CPU time
hardly depends on what else the machine does; the words name the load apart.
"""

import time
from dataclasses import dataclass

import torch

from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.runtime.wording import count_of, format_rough
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import (
    ModelWithLoss,
    build_model,
    init_state,
    prepare_batch,
)
from carvana_ray.unet import loss

SIDES = 64, 128  # of the two images, in pixels of the finest level
# A pixel of a real image costs more, since less of it is in the caches: 0.8 to 1.5 times the
# measured cost over six networks of base 8 to 32 on 160 x 240 to 320 x 480 pixels (two busy cores).
REAL_SIZE = 1.2
START_S = 25.0  # of Ray's processes
DECODE_S = 0.03  # of a core for an image and its mask
PREDICT_S = 0.03  # of a core for an image, without the network
FORWARD = 0.3  # of the time of a training step
LONG_S = 600.0  # from here on the words name what would be shorter
GPU_RATE = 850.0  # images/s of one H200, base 32 on 320 x 480 pixels; docs/benchmarks.md
GPU_CELLS = 320 * 480 * 32**2
GPU_LIMIT = 2000.0  # images/s that a small network reaches there
GPU_START_S = 40.0


@dataclass(frozen=True)
class Network:
    """What the cost of a network depends on."""

    recipe: str
    base: int
    size: tuple[int, int]  # (h, w) of its images in pixels, after the downscale
    batch: int
    encoder: str = "none"


@dataclass(frozen=True)
class StepCost:
    """CPU seconds of a training step: of the step itself, and of each pixel of its images."""

    step: float
    pixel: float

    def image(self, network: Network) -> float:
        """Return the CPU seconds of an image."""
        height, width = network.size
        return self.pixel * height * width + self.step / network.batch


def measure(network: Network) -> StepCost:
    """Time the network on one thread of this process; takes about a second of CPU time."""
    recipe, threads = RECIPES[network.recipe], torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)
        try:
            (small, large), optimizer = _step_seconds(network, recipe)
        finally:
            torch.set_num_threads(threads)
    areas = [(side * recipe.unshuffle) ** 2 for side in SIDES]
    pixel = max(large - small, 0.0) / (areas[1] - areas[0])
    step = max(small - pixel * areas[0], 0.0) + optimizer
    return StepCost(step=step, pixel=REAL_SIZE * pixel)


def _step_seconds(network: Network, recipe: Recipe) -> tuple[list[float], float]:
    """Return CPU seconds: of the gradient of one image of each of `SIDES`, and of the optimizer."""
    model = build_model(network.base, recipe, 0, network.encoder)
    module = ModelWithLoss(model, recipe.edge_weight).train()
    state = init_state(module, module, recipe, rate=1e-3, total_steps=100)
    seconds = []
    for side in SIDES:
        pixels = side * recipe.unshuffle
        blank = torch.zeros(1, pixels, pixels, dtype=torch.uint8)
        batch = {"image": blank.float(), "soft_mask": blank, "weight": torch.ones(1)}
        if recipe.affine_augment:
            batch |= {"image": blank, "affine": torch.eye(2, 3)[None]}
        times = []
        for _ in range(3):  # the first prepares the kernels
            began = time.thread_time()
            sums, _counts = module(*prepare_batch(batch, training=True))
            state.optimizer.zero_grad(set_to_none=True)
            loss.loss_from_sums(sums).backward()
            times.append(time.thread_time() - began)
        seconds.append(min(times[1:]))
    began = time.thread_time()
    state.optimizer.step()
    return seconds, time.thread_time() - began


def speedup(cpus: int) -> float:
    """Return how much faster several threads are than one."""
    return float(cpus**0.85)


def training_seconds(cost: StepCost, network: Network, plan: BatchPlan, cpus: int) -> float:
    """Return the seconds of a training on CPUs that nothing else uses."""
    steps = plan.epochs * (plan.train + FORWARD * plan.val) * cost.image(network)
    decoding = (plan.train + plan.val) * DECODE_S / cpus
    return START_S + decoding + steps / speedup(cpus)


def prediction_seconds(cost: StepCost, network: Network, images: int, cpus: int) -> float:
    """Return the seconds of a prediction on CPUs that nothing else uses."""
    passes = 2 if RECIPES[network.recipe].tta_flip else 1
    forward = passes * FORWARD * cost.image(network) / speedup(cpus)
    return START_S + images * (forward + PREDICT_S / cpus)


def gpu_seconds(network: Network, plan: BatchPlan) -> float:
    """Return the seconds of a training on one H200."""
    height, width = network.size
    cells = height * width / RECIPES[network.recipe].unshuffle ** 2 * network.base**2
    rate = min(GPU_RATE * GPU_CELLS / cells, GPU_LIMIT)
    return GPU_START_S + plan.epochs * (plan.train + FORWARD * plan.val) / rate


def describe(seconds: float, cpus: int, load: float) -> str:
    """Return the time in words: ``about 3 h on 2 CPUs``, and how busy they are.

    Args:
        seconds: on CPUs that nothing else uses.
        cpus: used by the training.
        load: processes that want a CPU now.
    """
    words = f"about {format_rough(seconds)} on {count_of(cpus, 'CPUs')}"
    if load < cpus:
        return words
    busy = format_rough(seconds * (load + cpus) / cpus)
    return f"{words}, up to {busy} while other programs use them as now"
