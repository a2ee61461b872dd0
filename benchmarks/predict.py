"""Compare prediction as a job with the ceilings of the machine and with what a user would write.

    python benchmarks/predict.py --data FOLDER --model MODEL [--pictures 100064]
                                 [--parts ceilings job one ray] [--gpus 1 2] [--cores 16]

    ceilings  decode   a pool with a process per core: open, read, `load_gray`; no Ray
              network  batches that are already on the device, one replica
              masks    soft masks on the device to run bounds in CPU memory
    job       jobs/predict.py as a command: from start to validated submission, and its steady rate
    one       one image at a time, see peers.py
    ray       Ray Data's batch inference on --peer-images images, see peers.py

The images of FOLDER are linked under as many names as --pictures says. The ceilings are measured
before the job, on the same machine. The command should take at most 16 s and the time of all images
at 0.9 of the lowest ceiling. With `--gpus 1 2` the job runs on one and on two GPUs, with as many
cores for each; network and masks count for each GPU, and peers use as many GPUs as the first job.
Other flags, such as --decode gpu, go to the job. The last line is one JSON object.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import usage

from carvana_ray import images
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import load_manifest, load_model
from carvana_ray.data import layout
from carvana_ray.inference import predictor
from carvana_ray.inference.predictor import Predictor

PEERS = {"one": "one", "ray": "ray-predict"}  # names in peers.py
PARTS = ["ceilings", "job", *PEERS]
SECONDS = 5.0  # of each ceiling
START_S, OF_CEILING = 16.0, 0.9  # the bound of a command: see `bound`


def per_second(work: Callable[[], int], seconds: float = SECONDS) -> float:
    """Return the images per second of `work`, which returns the number of images it did."""
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
    return round(done / (time.perf_counter() - began), 1)


def _decode(task: tuple[str, int]) -> int:
    return images.load_gray(Path(task[0]).read_bytes(), task[1]).shape[0]


def decode_ceiling(source: list[Path], downscale: int) -> float:
    """Return the images per second of a pool with a process per core."""
    cores = machine.cores()
    tasks = [(str(path), downscale) for path in itertools.islice(itertools.cycle(source), 64)]
    with multiprocessing.get_context("spawn").Pool(cores) as pool:  # CUDA does not survive a fork

        def work() -> int:
            return len(pool.map(_decode, tasks * 4 * cores, chunksize=64))

        return per_second(work)


def device_ceilings(model: str, source: list[Path], device: torch.device) -> dict[str, float]:
    """Return the images per second of the network alone, and of masks and run bounds alone."""
    network, manifest = load_model(model)
    model_predictor = Predictor(network, device, manifest.tta_flip)
    batch, calls = 4, 1
    if device.type == "cuda":
        grid = images.grid_size(layout.HEIGHT, layout.WIDTH, manifest.downscale)
        batch, calls = predictor.max_batch(*grid, manifest.unet.fold), 8
    gray = [images.load_gray(path.read_bytes(), manifest.downscale) for path in source[:batch]]
    gray = np.stack(list(itertools.islice(itertools.cycle(gray), batch)))
    gray_on_device = torch.from_numpy(gray).to(device)
    soft_masks = model_predictor.soft_masks(gray)

    def wait() -> int:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return calls * batch

    @torch.inference_mode()
    def run_network() -> int:
        for _ in range(calls):
            model_predictor.logits(gray_on_device)
        return wait()

    def run_masks() -> int:
        for _ in range(calls):
            for part in soft_masks.split(predictor.full_size_batch(layout.HEIGHT, layout.WIDTH)):
                predictor.to_run_bounds(part, layout.HEIGHT, layout.WIDTH)
        return wait()

    return {"network": per_second(run_network), "masks": per_second(run_masks)}


def job(data: Path, out: Path, gpus: int, flags: list[str]) -> dict[str, Any]:
    """Run jobs/predict.py on so many GPUs (0: on CPUs); return its rate, seconds and usages."""
    command = machine.job("predict", "--data", data, "--out", out, *flags)
    began, clock = time.time(), time.perf_counter()
    with usage.UsageSampler() as sampler:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=machine.environment(gpus or None)
        )
    seconds = time.perf_counter() - clock
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}")
    result = json.loads(done.stdout.splitlines()[-1])
    written = [file.stat().st_mtime - began for file in out.rglob("shards/*.parquet")]
    found = {"gpus": gpus, "images_per_second": result["images_per_second"]}
    if written:  # none in a run of a few images
        first, last = min(written), max(written)
        found |= {"first_shard_s": round(first, 1), "last_shard_s": round(last, 1)}
        for name, samples in (("cpu_busy", sampler.cpu), ("gpu_busy", sampler.gpu)):
            values = [value for second, value in samples if first < second <= last]
            if values:
                found[name] = round(float(np.mean(values)), 3)
    return {**found, "job_s": result["seconds"], "command_s": round(seconds, 1)}


def bound(pictures: int, lowest: float) -> float:
    """Return the seconds that a command may take, at a lowest ceiling in images per second."""
    return START_S + pictures / (OF_CEILING * lowest)


def measure_job(flags: argparse.Namespace, data: Path, out: Path, gpus: int) -> dict[str, Any]:
    """Return the figures of the job and, of the parts that are measured, of its ceilings."""
    found: dict[str, Any] = {"cores": machine.cores()}
    lowest = None
    if "ceilings" in flags.parts:
        # As many decoders as this job has cores; each GPU has a network.
        found |= {"decode": decode_ceiling(flags.source, flags.downscale)}
        found |= {name: round(max(gpus, 1) * rate, 1) for name, rate in flags.of_device.items()}
        lowest = min(found[name] for name in ("decode", *flags.of_device))
    if "job" not in flags.parts:
        return found
    found |= job(data, out, gpus, ["--model", flags.model, *flags.job_flags])
    if lowest:
        found["to_lowest_ceiling"] = round(found["images_per_second"] / lowest, 3)
        found["bound_s"] = round(bound(flags.pictures, lowest), 1)
        found["command_to_bound"] = round(found["command_s"] / found["bound_s"], 3)
    return found


def peer(name: str, flags: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a peer, in a process of its own."""
    command = [sys.executable, str(machine.REPOSITORY / "benchmarks/peers.py"), PEERS[name]]
    command += ["--data", str(flags.linked), "--model", flags.model]
    command += ["--images", str(flags.peer_images)]
    result = machine.run(command, flags.gpus[0] or None)
    kept = ("images_per_second", "seconds", "command_s")
    return {key: round(result[key], 1) for key in kept if key in result}


def measure(flags: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return the figures of each part, and the ratios between them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = next(f for f in (flags.data / "test", flags.data) if f.exists())
    flags.source = sorted(path.resolve() for path in folder.glob("*.jpg"))
    flags.linked, cores = scratch / "data", sorted(os.sched_getaffinity(0))
    numbers = (divmod(number, layout.VIEWS) for number in range(flags.pictures))
    names = [f"{car:012x}_{view + 1:02d}.jpg" for car, view in numbers]
    machine.link(flags.source, flags.linked, names)
    flags.model = resolve_model(flags.model)
    flags.downscale = load_manifest(flags.model, "--model").downscale
    if "ceilings" in flags.parts:
        flags.of_device = device_ceilings(flags.model, flags.source, device)
    found: dict[str, Any] = {}
    for gpus in flags.gpus:
        os.sched_setaffinity(0, cores[: len(cores) * max(gpus, 1) // max(*flags.gpus, 1)])
        out = (flags.keep or scratch) / f"out-{gpus}"
        found[f"gpus_{gpus}"] = measure_job(flags, flags.linked, out, gpus)
        print(found, file=sys.stderr, flush=True)
    os.sched_setaffinity(0, cores)
    found |= {name: peer(name, flags) for name in PEERS if name in flags.parts}
    return found


def ratios(found: dict[str, Any], gpus: list[int]) -> dict[str, float]:
    """Return the ratios of the job on the first number of GPUs to the peers, of others to it."""
    ours, values = found[f"gpus_{gpus[0]}"], {}
    if "images_per_second" not in ours:
        return {}
    for name in PEERS:
        if name in found:
            other = found[name]["images_per_second"]
            values[f"job_to_{name}"] = round(ours["images_per_second"] / other, 1)
    for count in gpus[1:]:
        more = found[f"gpus_{count}"]
        steady = more["images_per_second"] / ours["images_per_second"]
        values[f"gpus_{count}_to_first"] = round(steady, 3)
        values[f"gpus_{count}_to_first_s"] = round(ours["command_s"] / more["command_s"], 3)
    return values


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder with images in test/")
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--pictures", type=int, default=100_064)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--gpus", type=int, nargs="+", help="of the job (default: all)")
    parser.add_argument("--cores", type=int, help="use so many (default: all)")
    parser.add_argument("--peer-images", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="folder for the jobs' results")
    flags, flags.job_flags = parser.parse_known_args()
    machine.use_cores(flags.cores)
    flags.gpus = flags.gpus or [torch.cuda.device_count()]
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(flags, Path(scratch))
    found["ratios"] = ratios(found, flags.gpus)
    for name, value in found.items():
        print(name, value)
    machine.print_result("predict", pictures=flags.pictures, job_flags=flags.job_flags, **found)


if __name__ == "__main__":
    main()
