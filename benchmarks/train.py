"""Compare training with a loop over one batch on the device and with a plain DataLoader.

    python benchmarks/train.py --data FOLDER [--cars 300] [--batch-sizes 16 64] [--epochs 5]

    ceiling   plain PyTorch: the same network, compiled, over one batch that stays on the device
    plain     the obvious program: a DataLoader over files, full decode, the network not compiled
    ours      jobs/train.py as a command: steady (after each epoch's first batch) and in total

The images of FOLDER are linked under new names to as many cars as --cars says. The last line is one
JSON object with the ratios.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES
from carvana_ray.data import layout
from carvana_ray.training.state import build_model
from carvana_ray.unet import loss
from carvana_ray.unet.network import compute_dtype

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = RECIPES["default"]
GRID = images.grid_size(layout.HEIGHT, layout.WIDTH, 4)
_EPOCH_KEYS = ("images_per_second", "data_wait_fraction", "first_batch_seconds", "seconds")
SECONDS = 6.0  # of each loop, after its first steps


def link(data: Path, folder: Path, cars: int) -> list[tuple[Path, Path]]:
    """Link images and masks as `cars` cars in Kaggle's layout; return their (image, mask) paths."""
    pairs = []
    source = sorted((data / "train").glob("*.jpg"))
    for name in ("train", "train_masks"):
        (folder / name).mkdir(parents=True)
    for number in range(cars * layout.VIEWS):
        image = source[number % len(source)].resolve()
        mask = image.parents[1] / "train_masks" / f"{image.stem}_mask.gif"
        stem = f"{number // layout.VIEWS:012x}_{number % layout.VIEWS + 1:02d}"
        pairs.append(
            (folder / "train" / f"{stem}.jpg", folder / "train_masks" / f"{stem}_mask.gif")
        )
        for old, new in zip((image, mask), pairs[-1], strict=True):
            os.symlink(old, new)
    return pairs


def make_step(device: torch.device, compiled: bool) -> Callable[..., None]:
    """Return a training step on (image, target), both float [B, 1, h, w]."""
    network = build_model(32, RECIPE, 0).to(device)
    forward = torch.compile(network) if compiled else network
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=on_gpu)
    dtype = compute_dtype(network, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(image: torch.Tensor, target: torch.Tensor) -> None:
        with torch.autocast(device.type, dtype, enabled=on_gpu):
            logits = forward(image)
        value = loss.bce_dice(logits, target)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(value).backward()
        if RECIPE.grad_clip_norm:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), RECIPE.grad_clip_norm)
        scaler.step(optimizer)
        scaler.update()

    return step


def rate(steps: Iterator[int], device: torch.device) -> tuple[float, float]:
    """Return (images per second, seconds of the first steps); a step yields its batch size."""
    began = time.perf_counter()
    for _ in range(3):
        next(steps)
    _wait(device)
    first, started, done = time.perf_counter() - began, time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        for _ in range(8):
            done += next(steps)
        _wait(device)
    return done / (time.perf_counter() - started), first


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceiling(batch: int, device: torch.device, compiled: bool) -> tuple[float, float]:
    """Return the `rate` of a loop over one batch that stays on the device."""
    step = make_step(device, compiled)
    image = torch.randn(batch, 1, *GRID, device=device).contiguous(
        memory_format=torch.channels_last
    )
    target = torch.rand(batch, 1, *GRID, device=device)

    def steps() -> Iterator[int]:
        while True:
            step(image, target)
            yield batch

    return rate(steps(), device)


class Files(torch.utils.data.Dataset):
    """Images and masks, decoded at full size and resized on each access."""

    def __init__(self, pairs: list[tuple[Path, Path]]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        h, w = GRID
        image, mask = (Image.open(path) for path in self._pairs[index])
        small = image.convert("RGB").resize((w, h), Image.Resampling.BOX)
        gray = np.asarray(small).mean(axis=-1, dtype=np.float32)
        gray = (gray - gray.mean()) / gray.std()
        levels = np.asarray(mask.convert("L").resize((w, h), Image.Resampling.BOX))
        soft_mask = levels / np.float32(255)
        return torch.from_numpy(gray)[None], torch.from_numpy(soft_mask)[None]


def plain(pairs: list[tuple[Path, Path]], batch: int, device: torch.device) -> tuple[float, float]:
    """Return the `rate` of a plain loop over a DataLoader with a process per core."""
    step = make_step(device, compiled=False)
    loader = torch.utils.data.DataLoader(
        Files(pairs), batch, shuffle=True, num_workers=os.cpu_count() or 1, pin_memory=True
    )

    def steps() -> Iterator[int]:
        while True:
            for image, target in loader:
                step(
                    image.to(device, memory_format=torch.channels_last, non_blocking=True),
                    target.to(device, non_blocking=True),
                )
                yield len(image)

    return rate(steps(), device)


def ours(
    data: Path, out: Path, batch: int, epochs: int, more: list[str], profile: bool
) -> dict[str, Any]:
    """Run jobs/train.py; return its result, its history and the command's seconds."""
    command = [sys.executable, str(REPOSITORY / "jobs/train.py"), "--data", str(data)]
    command += ["--out", str(out), "--holdout-cars", "0", "--val-cars", "0.1"]
    command += ["--batch-size", str(batch), "--epochs", str(epochs), *more]
    command += ["--profile"] if profile else []
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    history = json.loads((out / "model/history.json").read_text())
    result = json.loads(done.stdout.splitlines()[-1])
    return {**result, "command_seconds": round(seconds, 1), "history": history}


def compare(
    flags: argparse.Namespace, data: Path, out: Path, batch: int, compile_flag: str
) -> dict[str, Any]:
    """Return the figures of the ceiling and of the job for a batch size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bare, first = ceiling(batch, device, compile_flag == "on")
    more = ["--compile", compile_flag]
    job = ours(data, out, batch, flags.epochs, more, flags.profile)
    history = job["history"]
    return {
        "batch": batch,
        "compile": compile_flag,
        "ceiling": round(bare, 1),
        "ceiling_first_s": round(first, 1),
        "ours": job["images_per_second"],
        "ratio": round(job["images_per_second"] / bare, 3),
        "data_wait": job["data_wait_fraction"],
        "job_s": job["seconds"],
        "command_s": job["command_seconds"],
        "epochs": [{key: round(epoch[key], 3) for key in _EPOCH_KEYS} for epoch in history],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, train_masks/")
    parser.add_argument("--cars", type=int, default=300, help="16 images each; a tenth validates")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--skip-plain", action="store_true", help="skip the DataLoader")
    parser.add_argument("--compile", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--profile", action="store_true", help="of the job; some steps are slower")
    parser.add_argument("--keep", type=Path, help="folder for the jobs' results")
    flags = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = device.type == "cuda"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = link(flags.data, folder / "data", flags.cars)
        for batch in flags.batch_sizes:
            for compile_flag in flags.compile if compiled else ["off"]:
                out = (flags.keep or folder) / f"{batch}{compile_flag}"
                row = compare(flags, folder / "data", out, batch, compile_flag)
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
            if not flags.skip_plain:
                rows[-1]["plain"] = round(plain(pairs, batch, device)[0], 1)
    print("batch  compiled  ceiling     ours  ratio  data wait  command      DataLoader")
    for row in rows:
        print(
            f"{row['batch']:5}  {row['compile']:>8} {row['ceiling']:8.1f} {row['ours']:8.1f} "
            f"{row['ratio']:6.3f} {row['data_wait']:10.4f} {row['command_s']:7.1f} s "
            f"{row.get('plain', ''):>13}"
        )
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    where = torch.cuda.get_device_name() if compiled else "cpu"
    print(json.dumps({"benchmark": "train", "device": where, "rows": rows, **versions}))


if __name__ == "__main__":
    main()
