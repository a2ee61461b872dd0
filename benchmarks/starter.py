"""Compare kinds of drawn scenes, and networks, by Dice on real photographs that no training sees.

    python benchmarks/starter.py --data FOLDER [--variants studio all all-walls ...] [--cars 60]

A variant is `studio` (the sample's one studio), `all` (all kinds of `sample.Variety`), `all-KIND`
(all but one) or `KIND` (that one alone). Each draws its own training cars. The drawn images are
encoded as JPEG and decoded as the program does. The scored photographs are those of the first
--real-cars cars by name in FOLDER, in Kaggle's layout. Network, training and prediction are the
project's own, without Ray. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import multiprocessing
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from in_memory import Way, load_all, pairs_of, score, train
from numpy.typing import NDArray

from carvana_ray import images, sample
from carvana_ray.config.recipes import RECIPES
from carvana_ray.data import layout
from carvana_ray.data.cars import KAGGLE

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def variety(variant: str) -> sample.Variety | None:
    """Return the kinds of variety of a variant, None for the studio."""
    kinds = [field.name for field in dataclasses.fields(sample.Variety)]
    if variant == "studio":
        return None
    if variant == "all":
        return sample.Variety()
    if variant.startswith("all-"):
        return sample.Variety(**{variant.removeprefix("all-"): False})
    return sample.Variety(**{kind: kind == variant for kind in kinds})


def draw(variant: str, seed: int, number: int, views: int) -> tuple[list[Pair], float]:
    """Return the gray images and soft masks of views of one drawn car, and the core-seconds."""
    began = time.process_time()
    kinds = variety(variant)
    scenes: sample.Scenes = "varied" if kinds else "studio"
    rng = np.random.default_rng((seed, number))
    car = sample.draw_car(rng, scenes, kinds or sample.Variety())
    pairs = []
    for view in np.random.default_rng(number).permutation(layout.VIEWS)[:views] + 1:
        rng = np.random.default_rng((seed, number, int(view)))
        image, mask = sample.photograph(car, int(view), rng)
        data = sample.encode_jpeg(image)
        pairs.append((images.load_gray(data, 4), images.shrink_mask(mask, 4)))
    return pairs, time.process_time() - began


def collect(tasks: list[Future[tuple[list[Pair], float]]]) -> tuple[torch.Tensor, float]:
    """Return drawn images and soft masks, uint8 [2, n, h, w], and the core-seconds an image."""
    drawn = [task.result() for task in tasks]
    pairs = [pair for some, _ in drawn for pair in some]
    data = torch.from_numpy(np.stack([np.stack(pair) for pair in pairs], axis=1))
    return data, sum(seconds for _, seconds in drawn) / len(pairs)


def load_real(folder: Path, cars: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gray images, uint8 [n, h, w], and masks, bool [n, H, W], of the first cars."""
    found = pairs_of(folder)
    wanted = set(KAGGLE.unique([image.name for image, _ in found])[:cars])
    pairs = [pair for pair in found if KAGGLE.car_of(pair[0].name) in wanted]
    return load_all(pairs, 4, device)[0], load_all(pairs, 1, device)[1] > 127


def summary(scores: list[float]) -> dict[str, float]:
    """Return the figures of a list of Dice."""
    return {
        "dice": round(float(np.mean(scores)), 5),
        "p10": round(float(np.percentile(scores, 10)), 5),
        "min": round(min(scores), 5),
    }


def main() -> None:
    """Draw, train and score each variant, and print a row for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--real-cars", type=int, default=20)
    reader.add_argument("--variants", nargs="+", default=["studio", "all"])
    reader.add_argument("--cars", type=int, default=60, help="drawn cars to train on")
    reader.add_argument("--views", type=int, default=16, help="drawn views of each car")
    reader.add_argument("--seeds", type=int, nargs="+", default=[0])
    reader.add_argument("--bases", type=int, nargs="+", default=[22])
    reader.add_argument("--folds", type=int, nargs="+", default=[2])
    reader.add_argument("--steps", type=int, default=2000, help="training steps")
    flags = reader.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    real, truth = load_real(flags.data, flags.real_cars, device)
    rows = []
    pool = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))
    numbers = range(flags.cars)
    tasks = {  # all at once: the next variants are drawn while this one trains
        variant: [pool.submit(draw, variant, 1000, number, flags.views) for number in numbers]
        for variant in flags.variants
    }
    for variant in flags.variants:
        data, cost = collect(tasks.pop(variant))
        data = data.to(device)
        for seed, base, fold in [
            (s, b, f) for s in flags.seeds for b in flags.bases for f in flags.folds
        ]:
            recipe = dataclasses.replace(RECIPES["starter"], unshuffle=fold)
            epochs = max(1, round(flags.steps * recipe.batch_size / data.shape[1]))
            state, took = train(recipe, seed, epochs, data, Way(base=base))
            scores, rate = score(state, recipe, real, truth)
            row = {"variant": variant, "seed": seed, "base": base, "fold": fold}
            row |= {"drawn": data.shape[1], "epochs": epochs, "draw_core_s": round(cost, 3)}
            rows.append(row | summary(scores) | took | {"predicted_per_second": rate})
            print(rows[-1], flush=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(json.dumps({"rows": rows, "device": name, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
