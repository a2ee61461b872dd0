"""Compare training as a job with loops over images in memory, and with what a user would write.

    python benchmarks/train.py --data FOLDER [--recipe default] [--batch-sizes 8 16] [--epochs 5]
                               [--parts eager fused job] [--gpus 1 2] [--cores 16]

    eager            the project's loop over batches that stay on the device, launched by the CPU
    graph            the same loop, its step captured and replayed
    compiled         the same, compiled by torch (not measured unless named)
    fused            the same loop with the step of the job on a GPU: the ceiling
    job              jobs/train.py as a command: steady images/s (after each epoch's first batch)
    loader           a plain DataLoader, see peers.py
    ray-train        `ray.data.read_images` with a plain loop in Ray Train, see peers.py
    ray-materialized the same with the decoded images in the object store

The pairs of FOLDER are linked under new names as --cars cars of 16 images, of which a tenth
validates. The loops take --loop-images of them in four epochs, and count the last three. With
`--gpus 1 2` the job runs on one and on two GPUs, with the batch size and as many cores for each;
peers use as many GPUs as the first job.
The last line is one JSON object.
"""

import argparse
import dataclasses
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import in_memory
import machine
import torch

from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.data import layout

PEERS = {"loader": [], "ray-train": [], "ray-materialized": ["--materialize"]}
PARTS = [*in_memory.PATHS, "job", *PEERS]
LOOP_EPOCHS, LOOP_PAIRS = 4, 256  # different pairs on the device
_EPOCH_KEYS = ("images_per_second", "data_wait_fraction", "first_batch_seconds", "seconds")


def link_cars(data: Path, folder: Path, cars: int) -> None:
    """Link the pairs in turn as `cars` cars in Kaggle's layout."""
    stems = [f"{car:012x}_{view + 1:02d}" for car in range(cars) for view in range(layout.VIEWS)]
    for name, files, end in zip(
        ("train", "train_masks"),
        zip(*in_memory.pairs_of(data), strict=True),
        (".jpg", "_mask.gif"),
        strict=True,
    ):
        machine.link(list(files), folder / name, [stem + end for stem in stems])


def job(flags: argparse.Namespace, recipe: Recipe, data: Path, gpus: int) -> dict[str, Any]:
    """Run jobs/train.py on so many GPUs (0: on CPUs); return its figures."""
    with tempfile.TemporaryDirectory() as scratch:
        out = flags.keep / f"{recipe.batch_size}-{gpus}" if flags.keep else Path(scratch, "out")
        epochs = flags.epochs or recipe.epochs
        batch = recipe.batch_size * max(gpus, 1)
        command = machine.job("train", "--data", data, "--out", out, "--recipe", flags.recipe)
        command += ["--holdout-cars", "0", "--val-cars", "0.1", "--epochs", str(epochs)]
        command += ["--batch-size", str(batch), *(["--workers", str(gpus)] if gpus else [])]
        began = time.time()
        result = machine.run(command + flags.job_flags, gpus or None)
        model_s = (out / "model/manifest.json").stat().st_mtime - began
        history = json.loads((out / "model/history.json").read_text())
    return {
        "gpus": gpus,
        "images_per_second": result["images_per_second"],
        "data_wait": result["data_wait_fraction"],
        "model_s": round(model_s, 1),
        "command_s": result["command_s"],
        "epochs": [{key: round(epoch[key], 3) for key in _EPOCH_KEYS} for epoch in history],
    }


def job_on_each(flags: argparse.Namespace, recipe: Recipe, data: Path) -> dict[str, Any]:
    """Return the job's figures by number of GPUs, with equal cores for each GPU."""
    cores, found = sorted(os.sched_getaffinity(0)), {}
    for gpus in flags.gpus:
        os.sched_setaffinity(0, cores[: len(cores) * max(gpus, 1) // max(*flags.gpus, 1)])
        key = f"job_{gpus}_gpus" if len(flags.gpus) > 1 else "job"
        found[key] = {"cores": machine.cores(), **job(flags, recipe, data, gpus)}
    os.sched_setaffinity(0, cores)
    return found


def peer(name: str, flags: argparse.Namespace, recipe: Recipe, data: Path) -> dict[str, Any]:
    """Return the figures of a peer, in a process of its own."""
    command = [sys.executable, str(machine.REPOSITORY / "benchmarks/peers.py")]
    command += [name.replace("materialized", "train"), *PEERS[name], "--data", str(data)]
    command += ["--recipe", flags.recipe, "--batch-size", str(recipe.batch_size)]
    command += ["--images", str(flags.peer_images)]
    result = machine.run(command, flags.gpus[0] or None)
    kept = ("images_per_second", "by_epoch", "materialize_s", "command_s")
    return {key: result[key] for key in kept if key in result}


def measure(flags: argparse.Namespace, recipe: Recipe, data: Path) -> dict[str, Any]:
    """Return the figures of each part for a batch size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    row: dict[str, Any] = {"recipe": flags.recipe, "batch": recipe.batch_size}
    paths = [path for path in in_memory.PATHS if path in flags.parts]
    if paths:
        pairs = in_memory.pairs_of(data)[:LOOP_PAIRS]
        images = in_memory.load_all(pairs, recipe.downscale, device)
    for path in paths:
        row[path] = in_memory.rate(recipe, path, images, flags.loop_images, LOOP_EPOCHS)
        print(path, row[path], file=sys.stderr, flush=True)
    images = None
    gc.collect()  # a state and its captured steps refer to each other
    torch.cuda.empty_cache()
    if "job" in flags.parts:
        row |= job_on_each(flags, recipe, data)
    for name in PEERS:
        if name in flags.parts:
            row[name] = peer(name, flags, recipe, data)
    return row


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of the job to the loop in memory and to the peers, and of two GPUs to one.

    The loop is that of the job's step.
    """
    speed = {part: row[part]["images_per_second"] for part in row if isinstance(row[part], dict)}
    jobs = sorted(part for part in speed if part.startswith("job"))
    if not jobs:
        return {}
    ours, found = speed[jobs[0]], {}
    ceiling = next((speed[path] for path in ("fused", "eager") if path in speed), None)
    loop = ceiling and ceiling * max(row[jobs[0]]["gpus"], 1)  # a loop on each GPU
    for name, other in (("loop", loop), *((name, speed.get(name)) for name in PEERS)):
        if other:
            found[f"job_to_{name}"] = round(ours / other, 3)
    for more in jobs[1:]:
        found[f"{more}_to_one"] = round(speed[more] / ours, 3)
        found[f"{more}_to_one_s"] = round(row[jobs[0]]["command_s"] / row[more]["command_s"], 3)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, train_masks/")
    parser.add_argument("--recipe", default="default", choices=list(RECIPES))
    parser.add_argument("--cars", type=int, default=300, help="16 images each; a tenth validates")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8], help="for each GPU")
    parser.add_argument("--epochs", type=int, help="of the job (default: the recipe's)")
    parts = [part for part in PARTS if part != "compiled"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=PARTS)
    parser.add_argument("--gpus", type=int, nargs="+", help="of the job (default: all)")
    parser.add_argument("--cores", type=int, help="use so many (default: all)")
    parser.add_argument("--loop-images", type=int, default=1280, help="of an epoch of the loops")
    parser.add_argument("--peer-images", type=int, default=1280, help="of an epoch of the peers")
    parser.add_argument("--keep", type=Path, help="folder for the jobs' results")
    flags, flags.job_flags = parser.parse_known_args()  # other flags go to the job
    machine.use_cores(flags.cores)
    flags.gpus = flags.gpus or [torch.cuda.device_count()]
    if not torch.cuda.is_available():  # a CPU takes one path
        flags.parts = [part for part in flags.parts if part not in in_memory.PATHS[1:]]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        link_cars(flags.data, data, flags.cars)
        for batch in flags.batch_sizes:
            recipe = dataclasses.replace(RECIPES[flags.recipe], batch_size=batch)
            rows.append(measure(flags, recipe, data))
            rows[-1]["ratios"] = ratios(rows[-1])
    for row in rows:
        for part, value in row.items():
            print(f"{row['recipe']} in batches of {row['batch']}: {part} {value}")
    machine.print_result("train", cars=flags.cars, rows=rows)


if __name__ == "__main__":
    main()
