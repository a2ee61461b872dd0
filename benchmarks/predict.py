"""Compare prediction with the ceilings of the machine and with one image at a time.

    python benchmarks/predict.py --data FOLDER --model MODEL [--pictures 100064] [--decode gpu]

    decode    a pool with a process per core: open, read, `load_gray`; no Ray
    network   batches that are already on the device, one replica
    masks     soft masks on the device to run bounds in CPU memory
    one       one image at a time: full decode, network, resize, run-length text
    ours      jobs/predict.py as a command: from start to validated submission, and its steady rate

The images of FOLDER are linked under as many names as --pictures says. The ceilings are measured
before the job, on the same machine. The last line is one JSON object.
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import usage
from PIL import Image

from carvana_ray import images, rle
from carvana_ray.checkpoints.model import load_model
from carvana_ray.data import layout
from carvana_ray.inference import predictor
from carvana_ray.inference.predictor import Predictor

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 5.0


def link(source: list[Path], folder: Path, count: int) -> None:
    """Link images in turn under `count` names like Kaggle's."""
    folder.mkdir(parents=True)
    for number in range(count):
        car, view = divmod(number, layout.VIEWS)
        os.symlink(source[number % len(source)], folder / f"{car:012x}_{view + 1:02d}.jpg")


def per_second(work: Callable[[], int], seconds: float = SECONDS) -> float:
    """Return the images per second of `work`, which returns the number of images it did."""
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
    return done / (time.perf_counter() - began)


def _decode(path: str) -> int:
    return images.load_gray(Path(path).read_bytes(), 4).shape[0]


def decode_ceiling(source: list[Path]) -> float:
    """Return the images per second of a pool with a process per core."""
    paths = list(map(str, itertools.islice(itertools.cycle(source), 256 * (os.cpu_count() or 1))))
    with multiprocessing.get_context("fork").Pool() as pool:

        def work() -> int:
            return len(pool.map(_decode, paths, chunksize=64))

        return per_second(work)


def device_ceilings(model: str, source: list[Path], device: torch.device) -> tuple[float, float]:
    """Return the images per second of the network alone, and of masks and run bounds alone."""
    network, _ = load_model(model)
    model_predictor = Predictor(network, device)
    batch = 4
    if device.type == "cuda":
        batch = predictor.max_batch(*images.grid_size(layout.HEIGHT, layout.WIDTH, 4))
    gray = np.stack([images.load_gray(path.read_bytes()) for path in (source * batch)[:batch]])
    gray_on_device = torch.from_numpy(gray).to(device)
    soft_masks = model_predictor.soft_masks(gray)

    def wait() -> int:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 8 * batch

    @torch.inference_mode()
    def run_network() -> int:
        for _ in range(8):
            model_predictor.logits(gray_on_device)
        return wait()

    def run_masks() -> int:
        for _ in range(8):
            for part in soft_masks.split(predictor.full_size_batch(layout.HEIGHT, layout.WIDTH)):
                predictor.to_run_bounds(part, layout.HEIGHT, layout.WIDTH)
        return wait()

    return per_second(run_network), per_second(run_masks)


def one_by_one(model: str, source: list[Path], device: torch.device) -> float:
    """Return the images per second of the obvious program."""
    network, _ = load_model(model)
    network = network.eval().to(device)
    paths = itertools.cycle(source)
    h, w = images.grid_size(layout.HEIGHT, layout.WIDTH, 4)

    @torch.inference_mode()
    def work() -> int:
        image = Image.open(io.BytesIO(next(paths).read_bytes())).convert("RGB").resize((w, h))
        gray = np.asarray(image).mean(axis=-1, dtype=np.float32)
        gray = torch.from_numpy((gray - gray.mean()) / gray.std()).to(device)
        soft_mask = torch.sigmoid(network(gray[None, None]))[0, 0].cpu().numpy()
        full_size = Image.fromarray(soft_mask).resize((layout.WIDTH, layout.HEIGHT))
        rle.encode(np.asarray(full_size) > 0.5)
        return 1

    return per_second(work)


def job(
    data: Path, model: str, out: Path, *flags: str
) -> tuple[dict[str, Any], float, dict[str, float]]:
    """Run jobs/predict.py; return its result, the command's seconds, and `busy`."""
    command = [sys.executable, str(REPOSITORY / "jobs/predict.py"), "--data", str(data)]
    command += ["--model", model, "--out", str(out), "--verbose", *flags]
    began = time.perf_counter()
    lines: list[tuple[float, str]] = []
    with usage.UsageSampler() as sampler:
        pipe = subprocess.PIPE
        running = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert running.stdout is not None
        assert running.stderr is not None
        for line in running.stderr:
            lines.append((sampler.now(), line.rstrip()))
        result = running.stdout.read().splitlines()[-1]
        if running.wait():
            raise SystemExit(f"{shlex.join(command)} ended with {running.returncode}")
    return json.loads(result), time.perf_counter() - began, busy(lines, sampler)


def busy(lines: list[tuple[float, str]], sampler: usage.UsageSampler) -> dict[str, float]:
    """Return the mean usages of CPUs and GPUs (0..1) from the first shard to the last, and when.

    The job logs its progress every 10 s, so the first shard is known 10 s late at most.

    Args:
        lines: (second, line) of the job's log.
        sampler: of the same time.
    """
    progress = [second for second, line in lines if re.match(r"predict: \d+ of \d+", line)]
    first, last = progress[0], progress[-1]
    usages = {"first_shard_s": round(first, 1), "last_shard_s": round(last, 1)}
    for name, samples in (("cpu_busy", sampler.cpu), ("gpu_busy", sampler.gpu)):
        values = [value for second, value in samples if first < second <= last]
        if values:
            usages[name] = round(float(np.mean(values)), 3)
    return usages


def measure(
    flags: argparse.Namespace, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the rates in images per second, and the times and usages of the job."""
    rates: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = next(f for f in (flags.data / "test", flags.data) if f.exists())
        source = sorted(path.resolve() for path in folder.glob("*.jpg"))
        data = Path(scratch, "data")
        link(source, data, flags.pictures)
        rates["decode"] = decode_ceiling(source)  # first: CUDA does not survive a fork
        rates["network"], rates["masks"] = device_ceilings(flags.model, source, device)
        rates["one"] = one_by_one(flags.model, source, device)
        out = flags.keep or Path(scratch, "out")
        result, seconds, used = job(data, flags.model, out, "--decode", flags.decode)
    rates["ours"] = result["images_per_second"]
    return rates, {**used, "job_s": result["seconds"], "command_s": round(seconds, 1)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with images in test/")
    parser.add_argument("--model", required=True, help="model folder, downscale 4")
    parser.add_argument("--pictures", type=int, default=100_064)
    parser.add_argument("--keep", type=Path, help="folder for the job's results")
    parser.add_argument("--decode", default="cpu", choices=["cpu", "gpu"])
    flags = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rates, times = measure(flags, device)
    for name, value in rates.items():
        print(f"{name:10} {value:10.1f}" + ("" if name == "cores" else " images/s"))
    ratios = {
        "to_lower_ceiling": round(rates["ours"] / min(rates["decode"], rates["network"]), 3),
        "to_one_by_one": round(rates["ours"] / rates["one"], 1),
        **times,
    }
    print(ratios)
    report = {
        "benchmark": "predict",
        "decode_by": flags.decode,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "pictures": flags.pictures,
        **{name: round(value, 1) for name, value in rates.items()},
        **ratios,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
