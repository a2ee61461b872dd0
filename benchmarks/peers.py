"""What a user would write instead, with the same network: rates of plain programs.

    python benchmarks/peers.py loader --data FOLDER [--recipe default] [--batch-size 8]
    python benchmarks/peers.py ray-train --data FOLDER [--epochs 2] [--materialize]
    python benchmarks/peers.py ray-predict --data FOLDER --model MODEL
    python benchmarks/peers.py one --data FOLDER --model MODEL

    loader       a DataLoader with a process per core: full decode, resize, standardize, eager step
    ray-train    `ray.data.read_images`, a map that reads the mask, resizes and standardizes, and
                 `iter_torch_batches` in Ray Train, as in Ray's guides; the same eager step.
                 --materialize keeps what the map returns in the object store, so that only the
                 first epoch decodes
    ray-predict  `read_images`, the same map, an actor per GPU with the network, a map that
                 enlarges the mask and encodes its runs, Parquet files, as in Ray's guide to
                 batch inference
    one          one image at a time: full decode, network, resize, run-length text

The step of both trainings has what PyTorch's guides advise: float16 by autocast with a scaler,
channels last, fused Adam. Nothing is mirrored or moved. Benchmarks of this folder call this script;
the last line is one JSON object.
"""

import argparse
import dataclasses
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np
import ray
import torch
from PIL import Image
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from carvana_ray import images, rle
from carvana_ray.checkpoints.model import load_model
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.data import layout
from carvana_ray.training.state import build_model
from carvana_ray.unet import loss
from carvana_ray.unet.network import compute_dtype

SECONDS = 6.0  # of a loop, after its first steps
SHUFFLED = 128  # rows of `iter_torch_batches` to choose from
MASKS_PER_BATCH = 64  # of the network
Step = Callable[[torch.Tensor, torch.Tensor], None]


def shrink(image: Image.Image, downscale: int) -> Image.Image:
    """Return an image on the grid of the network."""
    h, w = images.grid_size(layout.HEIGHT, layout.WIDTH, downscale)
    return image.resize((w, h), Image.Resampling.BOX) if downscale > 1 else image


def standardize(image: Image.Image, downscale: int) -> np.ndarray:
    """Return the gray levels on the grid of the network, float32 [h, w]."""
    gray = np.asarray(shrink(image, downscale)).mean(axis=-1, dtype=np.float32)
    return (gray - gray.mean()) / gray.std()


def read_mask(image: str, downscale: int) -> np.ndarray:
    """Return the soft mask of an image, float32 [h, w]."""
    path = Path(image)
    mask = Image.open(path.parents[1] / "train_masks" / f"{path.stem}_mask.gif").convert("L")
    return np.asarray(shrink(mask, downscale)) / np.float32(255)


def make_step(network: torch.nn.Module, recipe: Recipe, device: torch.device) -> Step:
    """Return an eager training step on (image, target), both float32 [B, h, w]."""
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=on_gpu)
    dtype = compute_dtype(getattr(network, "module", network), device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(image: torch.Tensor, target: torch.Tensor) -> None:
        image, target = (
            part[:, None].to(device, memory_format=torch.channels_last, non_blocking=True)
            for part in (image, target)
        )
        with torch.autocast(device.type, dtype, enabled=on_gpu):
            logits = network(image)
        value = loss.bce_dice(logits, target)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(value).backward()
        if recipe.grad_clip_norm:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip_norm)
        scaler.step(optimizer)
        scaler.update()

    return step


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(steps: Iterator[int], device: torch.device) -> float:
    """Return the images per second of steps, each of which yields its batch size."""
    for _ in range(3):
        next(steps)
    wait(device)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        for _ in range(8):
            done += next(steps)
        wait(device)
    return done / (time.perf_counter() - started)


class Files(torch.utils.data.Dataset):
    """Images and masks, decoded at full size and resized on each access."""

    def __init__(self, paths: list[str], downscale: int) -> None:
        self._paths, self._downscale = paths, downscale

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self._paths[index]
        gray = standardize(Image.open(path).convert("RGB"), self._downscale)
        return torch.from_numpy(gray), torch.from_numpy(read_mask(path, self._downscale))


def loader(paths: list[str], recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Return the rate of a loop over a DataLoader with a process per core."""
    step = make_step(build_model(32, recipe, 0).to(device), recipe, device)
    batches = torch.utils.data.DataLoader(
        Files(paths, recipe.downscale),
        recipe.batch_size,
        shuffle=True,
        num_workers=machine.cores(),
        pin_memory=device.type == "cuda",
        drop_last=True,
    )

    def steps() -> Iterator[int]:
        while True:
            for image, target in batches:
                step(image, target)
                yield len(image)

    return {"images_per_second": rate(steps(), device)}


def train_loop(config: dict[str, Any]) -> list[tuple[int, float]]:
    """Train in a worker of Ray Train; return (images, seconds) of each epoch."""
    recipe, device = config["recipe"], get_device()
    step = make_step(prepare_model(build_model(32, recipe, 0)), recipe, device)
    shard = ray.train.get_dataset_shard("train")
    epochs = []
    for _ in range(config["epochs"]):
        began, done = time.perf_counter(), 0
        for batch in shard.iter_torch_batches(
            batch_size=recipe.batch_size, local_shuffle_buffer_size=SHUFFLED, drop_last=True
        ):
            step(batch["image"], batch["mask"])
            done += len(batch["image"])
        wait(device)
        epochs.append((done, time.perf_counter() - began))
    return epochs


def ray_train(
    paths: list[str], recipe: Recipe, epochs: int, materialize: bool
) -> dict[str, float | list[float]]:
    """Return the rate of each epoch of a plain program with Ray Data and Ray Train."""
    gpus = torch.cuda.device_count()

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        gray = standardize(Image.fromarray(row["image"]), recipe.downscale)
        return {"image": gray, "mask": read_mask(row["path"], recipe.downscale)}

    began = time.perf_counter()
    data = ray.data.read_images(paths, mode="RGB", include_paths=True).map(prepare)
    if materialize:
        data = data.materialize()
    ready = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as scratch:
        result = TorchTrainer(
            train_loop,
            train_loop_config={"recipe": recipe, "epochs": epochs},
            datasets={"train": data},
            scaling_config=ScalingConfig(num_workers=max(gpus, 1), use_gpu=gpus > 0),
            run_config=RunConfig(storage_path=scratch),
        ).fit()
    rates = [round(max(gpus, 1) * done / took, 1) for done, took in result.return_value]
    return {"images_per_second": rates[-1], "by_epoch": rates, "materialize_s": round(ready, 1)}


class MaskActor:
    """The network on its device, one per actor."""

    def __init__(self, model: str) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = load_model(model)[0].eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        image = torch.from_numpy(batch["image"])[:, None].to(self._device)
        soft_masks = (255 * self._network(image)[:, 0].sigmoid()).byte().cpu().numpy()
        return {"path": batch["path"], "soft_mask": soft_masks}


def encode(row: dict[str, Any]) -> dict[str, Any]:
    """Enlarge a soft mask and encode its runs."""
    full_size = Image.fromarray(row["soft_mask"]).resize((layout.WIDTH, layout.HEIGHT))
    return {"img": Path(row["path"]).name, "rle_mask": rle.encode(np.asarray(full_size) > 127)}


def ray_predict(paths: list[str], model: str, out: str) -> dict[str, float]:
    """Return the rate of Ray Data's batch inference, from its first task to the last file."""
    gpus, downscale = torch.cuda.device_count(), load_model(model)[1].downscale

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        gray = standardize(Image.fromarray(row["image"]), downscale)
        return {"path": row["path"], "image": gray}

    began = time.perf_counter()
    (
        ray.data.read_images(paths, mode="RGB", include_paths=True)
        .map(prepare)
        .map_batches(
            MaskActor,
            fn_constructor_args=(model,),
            batch_size=MASKS_PER_BATCH if gpus else 4,
            compute=ray.data.ActorPoolStrategy(size=max(gpus, 1)),
            num_gpus=min(gpus, 1),
        )
        .map(encode)
        .write_parquet(out)
    )
    seconds = time.perf_counter() - began
    return {"images_per_second": len(paths) / seconds, "seconds": round(seconds, 1)}


def one_by_one(paths: list[str], model: str, device: torch.device) -> dict[str, float]:
    """Return the rate of the obvious program."""
    network, manifest = load_model(model)
    network = network.eval().to(device)
    files = itertools.cycle(paths)

    @torch.inference_mode()
    def steps() -> Iterator[int]:
        while True:
            image = Image.open(io.BytesIO(Path(next(files)).read_bytes())).convert("RGB")
            gray = torch.from_numpy(standardize(image, manifest.downscale)).to(device)
            soft_mask = torch.sigmoid(network(gray[None, None]))[0, 0].cpu().numpy()
            full_size = Image.fromarray(soft_mask).resize((layout.WIDTH, layout.HEIGHT))
            rle.encode(np.asarray(full_size) > 0.5)
            yield 1

    return {"images_per_second": rate(steps(), device)}


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the peer that the flags name."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = RECIPES[flags.recipe]
    recipe = dataclasses.replace(recipe, batch_size=flags.batch_size or recipe.batch_size)
    folder = next(f for f in (flags.data / flags.folder, flags.data) if f.exists())
    paths = sorted(str(path.absolute()) for path in folder.glob("*.jpg"))[: flags.images]
    if flags.peer == "loader":
        return loader(paths, recipe, device)
    if flags.peer == "one":
        return one_by_one(paths, flags.model, device)
    ray.init(
        address="local", num_cpus=machine.cores(), include_dashboard=False, log_to_driver=False
    )
    if flags.peer == "ray-train":
        return ray_train(paths, recipe, flags.epochs, flags.materialize)
    with tempfile.TemporaryDirectory() as out:
        return ray_predict(paths, flags.model, out)


def main() -> None:
    """Measure one peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=["loader", "ray-train", "ray-predict", "one"])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ or test/")
    parser.add_argument("--images", type=int, help="at most so many")
    parser.add_argument("--recipe", default="default", choices=list(RECIPES))
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--materialize", action="store_true")
    parser.add_argument("--model", help="model folder")
    flags = parser.parse_args()
    flags.folder = "train" if flags.peer in ("loader", "ray-train") else "test"
    machine.print_result(flags.peer, **measure(flags))


if __name__ == "__main__":
    main()
