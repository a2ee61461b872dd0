"""What each recipe's masks are worth: Dice at full size on cars held out, over several seeds.

    python benchmarks/recipes.py --data FOLDER [--recipes default best ...] [--seeds 0 1 2]

The pictures are decoded once and stay on the device; the network, its training, its masks and
their score are the program's own (`training.train`, `Predictor`). So what is compared is the
recipes, and neither Ray nor a disk. A seed draws the first weights, the order and the changes of
the pictures; the cars held out are the same (seed 0), no car is kept for validation, and the last
epoch is what is scored. Beside the program's recipes:

    folded        blocks of 4 x 4 pixels as channels, else the default of before (batches of 16,
                  gradients as they are), 20 epochs
    default-16    the default recipe with batches of 16
    default-20    the default recipe for 20 epochs
    best-20       the best one for 20 epochs
    best-still    the best one, its pictures neither moved nor sized

`--share 1/2` takes every second (recipe, seed), for a process on each of two GPUs. A table for
people; the last line is one JSON object.
"""

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.data import layout as carvana
from carvana_ray.data import split as splits
from carvana_ray.images import augment
from carvana_ray.inference import mask_kernels as kernels
from carvana_ray.inference import predictor
from carvana_ray.inference.predictor import Predictor
from carvana_ray.training import loop as training
from carvana_ray.training import state as learner
from carvana_ray.training.batch_plan import BatchPlan

SIZE = (carvana.HEIGHT, carvana.WIDTH)
TRIED: dict[str, Recipe] = {
    **RECIPES,
    "folded": dataclasses.replace(
        RECIPES["default"], unshuffle=4, downscale=1, epochs=20, batch_size=16, grad_clip_norm=None
    ),
    "default-16": dataclasses.replace(RECIPES["default"], batch_size=16),
    "default-20": dataclasses.replace(RECIPES["default"], epochs=20),
    "best-20": dataclasses.replace(RECIPES["best"], epochs=20),
    "best-still": dataclasses.replace(RECIPES["best"], affine_augment=False),
}
Pairs = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load(pair: tuple[Path, Path], downscale: int) -> Pairs:
    """Return the gray picture and the share of car of each block, uint8 [h, w]."""
    mask = images.load_mask(pair[1].read_bytes())
    return images.load_gray(pair[0].read_bytes(), downscale), images.shrink_mask(mask, downscale)


def loaded(pairs: list[tuple[Path, Path]], downscale: int, device: torch.device) -> torch.Tensor:
    """Return all of them on the device: uint8 [2, n, h, w]."""
    all_ = torch.empty(
        2, len(pairs), *images.grid_size(*SIZE, downscale), dtype=torch.uint8, device=device
    )
    with ProcessPoolExecutor() as pool:
        found = pool.map(load, pairs, [downscale] * len(pairs), chunksize=8)
        for place, pair in enumerate(found):
            all_[:, place] = torch.from_numpy(np.stack(pair))
    return all_


def batches(plan: BatchPlan, recipe: Recipe, data: torch.Tensor) -> Iterator[learner.Batch]:
    """Yield the batches of a run as the workers of a job get them, from what is on the device."""
    device = data.device
    for index in range(plan.epochs * plan.blocks_per_epoch):
        block = plan.worker_batch(index)
        rngs = [plan.rng(block, place) for place in range(len(block.indices))]
        image, share = data[:, torch.from_numpy(block.indices).to(device)]
        batch = {"weight": torch.from_numpy(block.weight).to(device)}
        if recipe.affine_augment:
            drawn = np.stack([augment.sample_affine(rng, recipe.flip) for rng in rngs])
            batch["affine"] = torch.from_numpy(drawn).to(device)
        else:
            if recipe.flip:
                mirrored = torch.tensor([augment.coin(rng) for rng in rngs], device=device)
                image, share = (
                    torch.where(mirrored[:, None, None], one.flip(-1), one)
                    for one in (image, share)
                )
            image = images.standardize(image)
        yield {**batch, "image": image, "soft_mask": share}


def train(
    recipe: Recipe, seed: int, epochs: int, data: torch.Tensor
) -> tuple[learner.TrainState, dict[str, float]]:
    """Train on all that is given; return the state and what it took."""
    plan = BatchPlan(
        train=data.shape[1],
        val=0,
        batch=recipe.batch_size,
        workers=1,
        epochs=epochs,
        seed=seed,
    )
    scored = learner.ModelWithLoss(learner.build_model(32, recipe, seed)).to(data.device)
    state = learner.init_state(
        scored, scored, recipe, recipe.learning_rate, plan.epochs * plan.train_steps
    )
    worker = training.WorkerContext(
        device=data.device,
        count=1,
        all_reduce=lambda value: value.clone(),
        clock=time.perf_counter,
        progress=lambda done: None,
    )
    began = time.perf_counter()
    training.train(state, batches(plan, recipe, data), plan, worker, lambda _: None)
    rows = state.history
    seconds = sum(row["images"] / row["images_per_second"] for row in rows)
    return state, {
        "minutes": (time.perf_counter() - began) / 60,
        "trained_per_second": sum(row["images"] for row in rows) / seconds,
    }


def score(
    state: learner.TrainState, recipe: Recipe, gray: torch.Tensor, truth: torch.Tensor
) -> dict[str, float]:
    """Return Dice over pictures, uint8 [n, h, w], whose masks are bool [n, H, W]; and the rate."""
    ask = Predictor(state.model, gray.device, recipe.tta_flip)
    few = predictor.max_batch(*gray.shape[1:], recipe.unshuffle)
    found, seconds = [], 0.0
    for at in range(0, len(gray), few):
        pictures = gray[at : at + few].cpu().numpy()
        began = time.perf_counter()
        share = ask.soft_masks(pictures)
        if share.is_cuda:
            torch.cuda.synchronize()
        if at:  # the first one loads kernels
            seconds += time.perf_counter() - began
        for one, mask in zip(share, truth[at : at + few], strict=True):
            made = kernels.enlarge(one[None], *SIZE)[0]
            found.append(2 * (made & mask).sum().item() / (made.sum() + mask.sum()).item())
    return {
        "dice": float(np.mean(found)),
        "dice_min": min(found),
        "predicted_per_second": (len(gray) - few) / seconds if seconds else 0.0,
    }


def main() -> None:
    """Train and score; print a row as soon as it is there."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(TRIED))
    reader.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    reader.add_argument("--holdout-cars", default="16")
    reader.add_argument("--epochs", type=int, help="of each (default: the recipe's)")
    reader.add_argument("--share", default="1/1", help="of what there is to do: 2/3, the second")
    flags = reader.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [path.name for path in sorted((flags.data / "train").glob("*.jpg"))]
    cars = splits.split_cars(carvana.unique_cars(names), flags.holdout_cars, "0", 0)
    pairs = [
        (flags.data / "train" / name, flags.data / "train_masks" / f"{name[:-4]}_mask.gif")
        for name in names
    ]
    held = torch.tensor([carvana.car_of(name) in set(cars[2]) for name in names], device=device)
    todo = [(name, seed) for name in flags.recipes for seed in flags.seeds]
    which, of = map(int, flags.share.split("/"))
    scales = sorted({TRIED[name].downscale for name, _ in todo} | {1})
    data = {downscale: loaded(pairs, downscale, device) for downscale in scales}
    truth = data[1][1][held] > 127
    rows = []
    for name, seed in todo[which - 1 :: of]:
        recipe = TRIED[name]
        epochs = flags.epochs or recipe.epochs
        here = data[recipe.downscale]
        state, took = train(recipe, seed, epochs, here[:, ~held])
        row = {"recipe": name, "seed": seed, "epochs": epochs, **took}
        rows.append(row | score(state, recipe, here[0][held], truth))
        print(" ".join(f"{k} {v:.6g}" if k != "recipe" else v for k, v in rows[-1].items()))
    cuda = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(json.dumps({"rows": rows, "device": cuda, "torch": torch.__version__,
                      "python": platform.python_version(), "trained_on": int((~held).sum()),
                      "scored": int(held.sum())}))  # fmt: skip


if __name__ == "__main__":
    main()
