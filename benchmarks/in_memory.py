"""Training and scoring in one process with all images on the device: no Ray, no disk access.

Network, step, loop and masks are the project's own. A path says how a step runs:

    eager      each kernel is launched by the CPU, PyTorch's own kernels: the only one on CPUs
    graph      the same kernels, captured once and replayed
    compiled   the same with the network compiled by torch
    fused      captured, with kernels that pass over memory less often: as the job takes it on a GPU
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carvana_ray import images
from carvana_ray.config.recipes import Recipe
from carvana_ray.data import layout
from carvana_ray.images import augment
from carvana_ray.inference import mask_kernels
from carvana_ray.inference.predictor import Predictor, max_batch
from carvana_ray.training import loop
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.fused_model import with_loss
from carvana_ray.training.graph import capture
from carvana_ray.training.pretrained import load_published
from carvana_ray.training.state import Batch, ModelWithLoss, TrainState, build_model, init_state

SIZE = (layout.HEIGHT, layout.WIDTH)
PATHS = ("eager", "graph", "compiled", "fused")
Pair = tuple[Path, Path]  # files of an image and its mask


def pairs_of(data: Path) -> list[Pair]:
    """Return the pairs of a folder in Kaggle's layout, sorted by name."""
    masks = data / "train_masks"
    found = sorted((data / "train").glob("*.jpg"))
    return [(image, masks / f"{image.stem}_mask.gif") for image in found]


def load(pair: Pair, downscale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the gray image and the soft mask of a pair, both uint8 [h, w]."""
    mask = images.load_mask(pair[1].read_bytes())
    return images.load_gray(pair[0].read_bytes(), downscale), images.shrink_mask(mask, downscale)


def load_all(pairs: list[Pair], downscale: int, device: torch.device) -> torch.Tensor:
    """Return all pairs on the device: uint8 [2, n, h, w]."""
    data = torch.empty(
        2, len(pairs), *images.grid_size(*SIZE, downscale), dtype=torch.uint8, device=device
    )
    with ProcessPoolExecutor() as pool:
        loaded = pool.map(load, pairs, [downscale] * len(pairs), chunksize=8)
        for row, pair in enumerate(loaded):
            data[:, row] = torch.from_numpy(np.stack(pair))
    return data


def plan_of(recipe: Recipe, train: int, epochs: int, seed: int = 0) -> BatchPlan:
    """Return the plan of one worker without validation."""
    return BatchPlan(
        train=train, val=0, batch=recipe.batch_size, workers=1, epochs=epochs, seed=seed
    )


def batches(plan: BatchPlan, recipe: Recipe, data: torch.Tensor) -> Iterator[Batch]:
    """Yield the batches that a job's worker gets, from the data on the device.

    The images of the plan are those of the data in turn. What is random is drawn before the first
    batch, so that the CPU has nothing to do between two steps.
    """
    device = data.device
    blocks = [plan.worker_batch(index) for index in range(plan.epochs * plan.blocks_per_epoch)]
    indices = torch.from_numpy(np.stack([block.indices for block in blocks]) % data.shape[1])
    rngs = ([plan.rng(block, row) for row in range(len(block.indices))] for block in blocks)
    if recipe.affine_augment:
        limits = recipe.flip, recipe.max_shift, recipe.max_log_scale
        moves = np.stack([[augment.sample_affine(rng, *limits) for rng in row] for row in rngs])
    else:
        moves = np.array([[recipe.flip and augment.coin(rng) for rng in row] for row in rngs])
    weight = torch.ones(plan.batch, device=device)
    for chosen, move in zip(indices.to(device), torch.from_numpy(moves).to(device), strict=True):
        image, soft_mask = data[:, chosen]
        batch = {"image": image, "soft_mask": soft_mask, "weight": weight}
        if recipe.affine_augment:
            yield {**batch, "affine": move}
            continue
        mirrored = move[:, None, None]
        image, soft_mask = (
            torch.where(mirrored, part.flip(-1), part) for part in (image, soft_mask)
        )
        yield {**batch, "image": images.standardize(image), "soft_mask": soft_mask}


def job_path() -> str:
    """Return the path that the steps of a job take on this machine."""
    return "fused" if torch.cuda.is_available() else "eager"


def worker_on(device: torch.device) -> loop.WorkerContext:
    """Return the context of a single worker."""
    return loop.WorkerContext(
        device=device,
        count=1,
        all_reduce=lambda value: value.clone(),
        clock=time.perf_counter,
        progress=lambda done: None,
    )


@dataclass(frozen=True)
class Way:
    """How a recipe is trained.

    Attributes:
        path: of a step.
        base: channels of the network's finest level.
        encoder: as the flag; ``lite0`` needs the extra of that name.
    """

    path: str = field(default_factory=job_path)
    base: int = 32
    encoder: str = "none"


def begin(plan: BatchPlan, recipe: Recipe, example: Batch, way: Way) -> TrainState:
    """Return the state before the first step of a plan.

    `example` is a batch. Raises SystemExit if the steps cannot be captured.
    """
    device, path = example["image"].device, way.path
    network = build_model(way.base, recipe, plan.seed, way.encoder)
    load_published(network)
    if path == "fused":
        module = with_loss(network, device, recipe.edge_weight)
    else:
        module = ModelWithLoss(network, recipe.edge_weight).to(device)
    if path == "compiled":
        module.compile()
    steps = plan.epochs * plan.train_steps
    state = init_state(module, module, recipe, recipe.learning_rate, steps)
    if path != "eager":
        capture(state, example, worker_on(device))
        if not state.captured:
            raise SystemExit(f"{path}: the steps were not captured")
    return state


def run(state: TrainState, ready: Iterable[Batch], plan: BatchPlan) -> list[dict[str, float]]:
    """Train to the end of the plan; return the rows of its epochs."""
    device = next(state.model.parameters()).device
    loop.train(state, ready, plan, worker_on(device), lambda _: None)
    return state.history


def rate(recipe: Recipe, path: str, data: torch.Tensor, train: int, epochs: int) -> dict:
    """Return the rate in images/s of all epochs but the first, and the seconds of the first step.

    The batches are made before the first step and taken in turn.

    Args:
        recipe: with the batch size.
        path: of a step.
        data: uint8 [2, n, h, w].
        train: images of an epoch.
        epochs: at least two.
    """
    plan = plan_of(recipe, train, epochs)
    ready = list(batches(plan_of(recipe, min(train, data.shape[1]), 1), recipe, data))
    began = time.perf_counter()
    state = begin(plan, recipe, ready[0], Way(path))
    taken = itertools.islice(itertools.cycle(ready), plan.epochs * plan.train_steps)
    rows = run(state, taken, plan)[1:]
    seconds = sum(row["images"] / row["images_per_second"] for row in rows)
    return {
        "images_per_second": round(sum(row["images"] for row in rows) / seconds, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def train(
    recipe: Recipe,
    seed: int,
    epochs: int,
    data: torch.Tensor,
    way: Way | None = None,
) -> tuple[TrainState, dict[str, float]]:
    """Train on all data, as a job does unless told; return the state, the minutes and the rate."""
    plan = plan_of(recipe, data.shape[1], epochs, seed)
    began = time.perf_counter()
    drawn = batches(plan, recipe, data)
    first = next(drawn)
    state = begin(plan, recipe, first, way or Way())
    rows = run(state, itertools.chain([first], drawn), plan)
    seconds = sum(row["images"] / row["images_per_second"] for row in rows)
    return state, {
        "minutes": (time.perf_counter() - began) / 60,
        "trained_per_second": sum(row["images"] for row in rows) / seconds,
    }


def predict(state: TrainState, recipe: Recipe, gray: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the soft masks, uint8 [n, h, w], and the rate in images/s.

    Args:
        state: of the training whose network predicts.
        recipe: says whether images are mirrored too.
        gray: uint8 [n, h, w].
    """
    predictor = Predictor(state.model, gray.device, recipe.tta_flip)
    batch = max_batch(gray.shape[1], gray.shape[2], recipe.unshuffle)
    soft_masks, seconds = [], 0.0
    for start in range(0, len(gray), batch):
        images_on_cpu = gray[start : start + batch].cpu().numpy()
        began = time.perf_counter()
        soft_masks.append(predictor.soft_masks(images_on_cpu))
        if gray.is_cuda:
            torch.cuda.synchronize()
        if start:  # the first batch loads kernels
            seconds += time.perf_counter() - began
    return torch.cat(soft_masks), (len(gray) - batch) / seconds if seconds else 0.0


def dice_of(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the Dice of each mask, float64 [n], on the device. Masks are bool [n, H, W]."""
    both, either = (masks & truth).sum((1, 2)), masks.sum((1, 2)) + truth.sum((1, 2))
    return 2 * both.double() / either


def score(
    state: TrainState, recipe: Recipe, gray: torch.Tensor, truth: torch.Tensor
) -> tuple[list[float], float]:
    """Return each image's Dice and the rate in images/s; `truth` is bool [n, H, W]."""
    soft_masks, rate = predict(state, recipe, gray)
    scores = [
        dice_of(mask_kernels.enlarge(soft_masks[n : n + 1], *SIZE), truth[n : n + 1])
        for n in range(len(gray))
    ]
    return torch.cat(scores).tolist(), rate
