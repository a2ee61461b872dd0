"""How fast training is, beside a loop whose batch is on the GPU already, and a plain DataLoader.

    python benchmarks/train.py --data FOLDER [--cars 300] [--batch-sizes 16 64] [--epochs 5]

    ceiling   plain PyTorch: the same network, compiled, over one batch that never leaves the device
    plain     what one would write first: a DataLoader over files, full decode, the network as it is
    ours      jobs/train.py as a command, steady (after each epoch's first batch) and in all

The pictures of FOLDER are linked under new names to as many cars as asked for. The last line is one
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
from carvana_ray.data import layout as carvana
from carvana_ray.training import state as learner
from carvana_ray.unet import loss

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = RECIPES["default"]
GRID = images.grid_size(carvana.HEIGHT, carvana.WIDTH, 4)
_SHOWN = ("images_per_second", "data_wait_fraction", "first_batch_seconds", "seconds")
SECONDS = 6.0  # of each loop, after its first steps


def link(data: Path, folder: Path, cars: int) -> list[tuple[Path, Path]]:
    """Link pictures and masks of a data set as `cars` cars in Kaggle's layout; return the pairs."""
    pairs = []
    source = sorted((data / "train").glob("*.jpg"))
    for name in ("train", "train_masks"):
        (folder / name).mkdir(parents=True)
    for place in range(cars * carvana.VIEWS):
        picture = source[place % len(source)].resolve()
        mask = picture.parents[1] / "train_masks" / f"{picture.stem}_mask.gif"
        stem = f"{place // carvana.VIEWS:012x}_{place % carvana.VIEWS + 1:02d}"
        pairs.append(
            (folder / "train" / f"{stem}.jpg", folder / "train_masks" / f"{stem}_mask.gif")
        )
        for old, new in zip((picture, mask), pairs[-1], strict=True):
            os.symlink(old, new)
    return pairs


def step_of(device: torch.device, compiled: bool) -> Callable[..., None]:
    """Return a plain training step: (image float [B, 1, h, w], target float [B, 1, h, w])."""
    network = learner.build_model(32, RECIPE, 0).to(device)
    called = torch.compile(network) if compiled else network
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=on_gpu)
    dtype = network.dtype_for(network, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(image: torch.Tensor, target: torch.Tensor) -> None:
        with torch.autocast(device.type, dtype, enabled=on_gpu):
            logits = called(image)
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
    """Return (pictures a second, seconds of the first one) of steps that yield their pictures."""
    began = time.perf_counter()
    for _ in range(3):
        next(steps)
    _wait(device)
    first, begin, seen = time.perf_counter() - began, time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        for _ in range(8):
            seen += next(steps)
        _wait(device)
    return seen / (time.perf_counter() - begin), first


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceiling(batch: int, device: torch.device, compiled: bool) -> tuple[float, float]:
    """Return `rate` of the loop over one batch that stays on the device."""
    step = step_of(device, compiled)
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
    """Picture and mask of a pair, decoded in full and resized each time that they are asked for."""

    def __init__(self, pairs: list[tuple[Path, Path]]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        h, w = GRID
        picture, mask = (Image.open(path) for path in self._pairs[place])
        small = picture.convert("RGB").resize((w, h), Image.Resampling.BOX)
        gray = np.asarray(small).mean(axis=-1, dtype=np.float32)
        gray = (gray - gray.mean()) / gray.std()
        share = np.asarray(mask.convert("L").resize((w, h), Image.Resampling.BOX)) / np.float32(255)
        return torch.from_numpy(gray)[None], torch.from_numpy(share)[None]


def plain(pairs: list[tuple[Path, Path]], batch: int, device: torch.device) -> tuple[float, float]:
    """Return `rate` of a plain loop over a DataLoader with a process a core."""
    step = step_of(device, compiled=False)
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, train_masks/")
    parser.add_argument("--cars", type=int, default=300, help="of 16 pictures; a tenth validates")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--skip-plain", action="store_true", help="leave the DataLoader out")
    parser.add_argument("--compile", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--profile", action="store_true", help="of the job; slower for some steps")
    parser.add_argument("--keep", type=Path, help="folder for the jobs' results")
    flags = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = device.type == "cuda"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = link(flags.data, folder / "data", flags.cars)
        for batch in flags.batch_sizes:
            for how in flags.compile if compiled else ["off"]:
                bare, first = ceiling(batch, device, how == "on")
                more = ["--compile", how]
                job = ours(
                    folder / "data",
                    (flags.keep or folder) / f"{batch}{how}",
                    batch,
                    flags.epochs,
                    more,
                    flags.profile,
                )
                row = {"batch": batch, "compile": how, "ceiling": round(bare, 1)}
                row |= {"ceiling_first_s": round(first, 1), "ours": job["images_per_second"]}
                row |= {"ratio": round(job["images_per_second"] / bare, 3)}
                row |= {"data_wait": job["data_wait_fraction"], "job_s": job["seconds"]}
                row |= {"command_s": job["command_seconds"]}
                row["epochs"] = [
                    {name: round(one[name], 3) for name in _SHOWN} for one in job["history"]
                ]
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
