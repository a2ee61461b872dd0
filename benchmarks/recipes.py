"""Compare recipes by Dice at full size on held-out cars, over several seeds.

    python benchmarks/recipes.py --data FOLDER [--recipes default best ...] [--seeds 0 1 2]

The images are decoded once and stay on the device. Network, training and prediction are the
project's own (`training.loop.train`, `Predictor`), without Ray and without disk access. A seed
determines initial weights, order and augmentation. The held-out cars are always those of seed 0, no
car is kept for validation, and the last epoch is scored. Recipes in addition to the project's:

    folded        the old default with 4 x 4 blocks of pixels as channels: batches of 16, no
                  gradient clipping, 20 epochs
    default-16    the default recipe with batches of 16
    default-20    the default recipe for 20 epochs
    best-20       the best recipe for 20 epochs
    best-still    the best recipe without affine augmentation

`--share 1/2` runs every second (recipe, seed), for one process on each of two GPUs. The last line
is one JSON object.
"""

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.data import layout
from carvana_ray.data.cars import KAGGLE
from carvana_ray.data.split import split_cars
from carvana_ray.images import augment
from carvana_ray.inference import mask_kernels
from carvana_ray.inference.predictor import Predictor, max_batch
from carvana_ray.training import loop
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import Batch, ModelWithLoss, TrainState, build_model, init_state

SIZE = (layout.HEIGHT, layout.WIDTH)
COMPARED: dict[str, Recipe] = {
    **RECIPES,
    "folded": dataclasses.replace(
        RECIPES["default"], unshuffle=4, downscale=1, epochs=20, batch_size=16, grad_clip_norm=None
    ),
    "default-16": dataclasses.replace(RECIPES["default"], batch_size=16),
    "default-20": dataclasses.replace(RECIPES["default"], epochs=20),
    "best-20": dataclasses.replace(RECIPES["best"], epochs=20),
    "best-still": dataclasses.replace(RECIPES["best"], affine_augment=False),
}


def load(pair: tuple[Path, Path], downscale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the gray image and the soft mask of a pair, both uint8 [h, w]."""
    mask = images.load_mask(pair[1].read_bytes())
    return images.load_gray(pair[0].read_bytes(), downscale), images.shrink_mask(mask, downscale)


def load_all(pairs: list[tuple[Path, Path]], downscale: int, device: torch.device) -> torch.Tensor:
    """Return all pairs on the device: uint8 [2, n, h, w]."""
    data = torch.empty(
        2, len(pairs), *images.grid_size(*SIZE, downscale), dtype=torch.uint8, device=device
    )
    with ProcessPoolExecutor() as pool:
        loaded = pool.map(load, pairs, [downscale] * len(pairs), chunksize=8)
        for row, pair in enumerate(loaded):
            data[:, row] = torch.from_numpy(np.stack(pair))
    return data


def batches(plan: BatchPlan, recipe: Recipe, data: torch.Tensor) -> Iterator[Batch]:
    """Yield the batches that a job's worker gets, from the data on the device."""
    device = data.device
    for index in range(plan.epochs * plan.blocks_per_epoch):
        block = plan.worker_batch(index)
        rngs = [plan.rng(block, row) for row in range(len(block.indices))]
        image, soft_mask = data[:, torch.from_numpy(block.indices).to(device)]
        batch = {"weight": torch.from_numpy(block.weight).to(device)}
        if recipe.affine_augment:
            limits = recipe.flip, recipe.max_shift, recipe.max_log_scale
            affine = np.stack([augment.sample_affine(rng, *limits) for rng in rngs])
            batch["affine"] = torch.from_numpy(affine).to(device)
        else:
            if recipe.flip:
                mirrored = torch.tensor([augment.coin(rng) for rng in rngs], device=device)
                image, soft_mask = (
                    torch.where(mirrored[:, None, None], pixels.flip(-1), pixels)
                    for pixels in (image, soft_mask)
                )
            image = images.standardize(image)
        yield {**batch, "image": image, "soft_mask": soft_mask}


def train(
    recipe: Recipe,
    seed: int,
    epochs: int,
    data: torch.Tensor,
    base: int = 32,
    change: Callable[[Batch], Batch] = lambda batch: batch,
) -> tuple[TrainState, dict[str, float]]:
    """Train on all data; return the state, the minutes and the rate."""
    plan = BatchPlan(
        train=data.shape[1],
        val=0,
        batch=recipe.batch_size,
        workers=1,
        epochs=epochs,
        seed=seed,
    )
    model = ModelWithLoss(build_model(base, recipe, seed)).to(data.device)
    steps = plan.epochs * plan.train_steps
    state = init_state(model, model, recipe, recipe.learning_rate, steps)
    worker = loop.WorkerContext(
        device=data.device,
        count=1,
        all_reduce=lambda value: value.clone(),
        clock=time.perf_counter,
        progress=lambda done: None,
    )
    began = time.perf_counter()
    loop.train(state, map(change, batches(plan, recipe, data)), plan, worker, lambda _: None)
    rows = state.history
    seconds = sum(row["images"] / row["images_per_second"] for row in rows)
    return state, {
        "minutes": (time.perf_counter() - began) / 60,
        "trained_per_second": sum(row["images"] for row in rows) / seconds,
    }


def score(
    state: TrainState, recipe: Recipe, gray: torch.Tensor, truth: torch.Tensor
) -> tuple[list[float], float]:
    """Return each image's Dice and the rate in images/s.

    Args:
        state: of the training whose network is scored.
        recipe: says whether images are mirrored too.
        gray: uint8 [n, h, w].
        truth: bool [n, H, W].
    """
    predictor = Predictor(state.model, gray.device, recipe.tta_flip)
    batch = max_batch(gray.shape[1], gray.shape[2], recipe.unshuffle)
    scores, seconds = [], 0.0
    for start in range(0, len(gray), batch):
        images_on_cpu = gray[start : start + batch].cpu().numpy()
        began = time.perf_counter()
        soft_masks = predictor.soft_masks(images_on_cpu)
        if soft_masks.is_cuda:
            torch.cuda.synchronize()
        if start:  # the first batch loads kernels
            seconds += time.perf_counter() - began
        for soft_mask, true_mask in zip(soft_masks, truth[start : start + batch], strict=True):
            mask = mask_kernels.enlarge(soft_mask[None], *SIZE)[0]
            both = (mask & true_mask).sum().item()
            scores.append(2 * both / (mask.sum() + true_mask.sum()).item())
    return scores, (len(gray) - batch) / seconds if seconds else 0.0


def main() -> None:
    """Train and score each recipe and seed, and print a row for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(COMPARED))
    reader.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    reader.add_argument("--holdout-cars", default="16")
    reader.add_argument("--epochs", type=int, help="epochs of each (default: the recipe's)")
    reader.add_argument("--share", default="1/1", help="part of the runs, such as 1/2")
    flags = reader.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [path.name for path in sorted((flags.data / "train").glob("*.jpg"))]
    cars = split_cars(KAGGLE.unique(names), flags.holdout_cars, "0", 0)
    pairs = [
        (flags.data / "train" / name, flags.data / "train_masks" / f"{name[:-4]}_mask.gif")
        for name in names
    ]
    held = torch.tensor([KAGGLE.car_of(name) in set(cars[2]) for name in names], device=device)
    todo = [(name, seed) for name in flags.recipes for seed in flags.seeds]
    first, step = map(int, flags.share.split("/"))
    scales = sorted({COMPARED[name].downscale for name, _ in todo} | {1})
    data = {downscale: load_all(pairs, downscale, device) for downscale in scales}
    truth = data[1][1][held] > 127
    rows = []
    for name, seed in todo[first - 1 :: step]:
        recipe = COMPARED[name]
        epochs = flags.epochs or recipe.epochs
        scaled = data[recipe.downscale]
        state, took = train(recipe, seed, epochs, scaled[:, ~held])
        row = {"recipe": name, "seed": seed, "epochs": epochs, **took}
        scores, rate = score(state, recipe, scaled[0][held], truth)
        row |= {"dice": float(np.mean(scores)), "dice_min": min(scores)}
        rows.append(row | {"predicted_per_second": rate})
        print(" ".join(f"{k} {v:.6g}" if k != "recipe" else v for k, v in rows[-1].items()))
    result = {
        "rows": rows,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "trained_on": int((~held).sum()),
        "scored": int(held.sum()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
