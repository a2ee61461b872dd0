"""How fast a catalogue is predicted, beside the ceilings of the machine and one picture at a time.

    python benchmarks/predict.py --data FOLDER --model MODEL [--pictures 100064] [--decode gpu]

    decode    a bare pool of processes, one a core: open, read, `load_gray`; no Ray
    network   batches that are on the device already, one replica
    masks     shares on the device to run ends in the CPU's memory
    one       one picture at a time: full decode, network, enlarge, text
    ours      jobs/predict.py as a command, command to checked submission, and its steady rate

The pictures of FOLDER are linked under as many names as asked for. Ceilings are taken before the
job, on the same machine. The last line is one JSON object.
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import platform
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
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.data import layout as carvana
from carvana_ray.inference import predictor
from carvana_ray.inference.predictor import Predictor

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 5.0


def link(source: list[Path], folder: Path, pictures: int) -> None:
    """Link pictures as a catalogue of names of Kaggle's grammar."""
    folder.mkdir(parents=True)
    for place in range(pictures):
        car, view = divmod(place, carvana.VIEWS)
        os.symlink(source[place % len(source)], folder / f"{car:012x}_{view + 1:02d}.jpg")


def per_second(work: Callable[[], int], seconds: float = SECONDS) -> float:
    """Return how many pictures a second `work` does, which says how many it did."""
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
    return done / (time.perf_counter() - began)


def _decode(path: str) -> int:
    return images.load_gray(Path(path).read_bytes(), 4).shape[0]


def decode_ceiling(source: list[Path]) -> float:
    """Return the pictures a second of a pool with a process a core."""
    paths = list(map(str, itertools.islice(itertools.cycle(source), 256 * (os.cpu_count() or 1))))
    with multiprocessing.get_context("fork").Pool() as pool:

        def work() -> int:
            return len(pool.map(_decode, paths, chunksize=64))

        return per_second(work)


def device_ceilings(model: str, source: list[Path], device: torch.device) -> tuple[float, float]:
    """Return the pictures a second of the network alone, and of masks and their runs alone."""
    network, _ = checkpoint.load_model(model)
    ask = Predictor(network, device)
    few = predictor.max_batch(*images.grid_size(carvana.HEIGHT, carvana.WIDTH, 4))
    few = few if device.type == "cuda" else 4
    gray = np.stack([images.load_gray(path.read_bytes()) for path in (source * few)[:few]])
    there = torch.from_numpy(gray).to(device)
    share = ask.soft_masks(gray)

    def wait() -> int:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 8 * few

    @torch.inference_mode()
    def of_network() -> int:
        for _ in range(8):
            ask.logits(there)
        return wait()

    def of_masks() -> int:
        for _ in range(8):
            for part in share.split(predictor.FULL_SIZE_AT_ONCE):
                predictor.to_run_bounds(part, carvana.HEIGHT, carvana.WIDTH)
        return wait()

    return per_second(of_network), per_second(of_masks)


def one_by_one(model: str, source: list[Path], device: torch.device) -> float:
    """Return the pictures a second of what one would write first."""
    network, _ = checkpoint.load_model(model)
    network = network.eval().to(device)
    paths = itertools.cycle(source)
    h, w = images.grid_size(carvana.HEIGHT, carvana.WIDTH, 4)

    @torch.inference_mode()
    def work() -> int:
        image = Image.open(io.BytesIO(next(paths).read_bytes())).convert("RGB").resize((w, h))
        gray = np.asarray(image).mean(axis=-1, dtype=np.float32)
        gray = torch.from_numpy((gray - gray.mean()) / gray.std()).to(device)
        share = torch.sigmoid(network(gray[None, None]))[0, 0].cpu().numpy()
        big = Image.fromarray(share).resize((carvana.WIDTH, carvana.HEIGHT))
        rle.encode(np.asarray(big) > 0.5)
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
    """Return how busy CPUs and GPUs were, 0..1, and when: from the first shard to the last.

    Args:
        lines: (second, line) of the job's log.
        sampler: of the same time.
    """
    first, last = (
        next(second for second, line in log if line.startswith("predict: ") and word in line)
        for word, log in ((" first ", lines), (" of ", lines[::-1]))
    )
    shares = {"first_shard_s": round(first, 1), "last_shard_s": round(last, 1)}
    for name, samples in (("cpu_busy", sampler.cpu), ("gpu_busy", sampler.gpu)):
        values = [value for second, value in samples if first < second <= last]
        if values:
            shares[name] = round(float(np.mean(values)), 3)
    return shares


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with pictures in test/")
    parser.add_argument("--model", required=True, help="model folder, downscale 4")
    parser.add_argument("--pictures", type=int, default=100_064)
    parser.add_argument("--keep", type=Path, help="folder for the job's results")
    parser.add_argument("--decode", default="cpu", choices=["cpu", "gpu"], help="of the job")
    flags = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = next(f for f in (flags.data / "test", flags.data) if f.exists())
        source = sorted(path.resolve() for path in folder.glob("*.jpg"))
        link(source, Path(scratch, "data"), flags.pictures)
        found["decode"] = decode_ceiling(source)  # first: forked processes must not see a CUDA
        found["network"], found["masks"] = device_ceilings(flags.model, source, device)
        found["one"] = one_by_one(flags.model, source, device)
        out = flags.keep or Path(scratch, "out")
        data = Path(scratch, "data")
        result, seconds, used = job(data, flags.model, out, "--decode", flags.decode)
    found["ours"] = result["images_per_second"]
    lower = min(found["decode"], found["network"])
    for name, value in found.items():
        print(f"{name:10} {value:10.1f}" + ("" if name == "cores" else " pictures/s"))
    ratios = {
        "to_lower_ceiling": round(found["ours"] / lower, 3),
        "to_one_by_one": round(found["ours"] / found["one"], 1),
        **used,
        "job_s": result["seconds"],
        "command_s": round(seconds, 1),
    }
    print(ratios)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    found = {name: round(value, 1) for name, value in found.items()}
    print(
        json.dumps(
            {
                "benchmark": "predict",
                "decode_by": flags.decode,
                "device": where,
                "pictures": flags.pictures,
                **found,
                **ratios,
                "torch": torch.__version__,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
