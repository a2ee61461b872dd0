"""JPEG engines, the network, and both at once in one process, without Ray.

    taskset -c 0-7 python benchmarks/engines.py --data FOLDER --model MODEL

    engines   `nvjpeg.Decoder` alone: JPEG files in memory to gray levels on the GPU
    network   gray levels on the device to run bounds in memory, calls in turn
    N calls   what a replica of `--decode gpu` does: N threads that decode and ask the network

The images of FOLDER are 1280 x 1918. The last line is one JSON object.
"""

import argparse
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from carvana_ray.checkpoints.model import load_model
from carvana_ray.data import layout
from carvana_ray.inference.nvjpeg import Decoder, EncodedImages
from carvana_ray.inference.predictor import Predictor

SIZE = layout.HEIGHT, layout.WIDTH
BATCH, SECONDS = 256, 3.0


class Rates:
    """Rates in images per second, with the cores that they take."""

    def __init__(self, folder: Path, model: str) -> None:
        self._device = torch.device("cuda")
        network, manifest = load_model(model)
        self._downscale = manifest.downscale
        self._predictor = Predictor(network, self._device)
        self._decoder = Decoder(self._device)
        paths = itertools.cycle(sorted(folder.glob("*.jpg")))
        self._files = [path.read_bytes() for path in itertools.islice(paths, BATCH)]
        self._gray = self._decoder(self._files, SIZE, self._downscale).cpu().numpy()

    def engines(self) -> None:
        """Decode a batch."""
        for start in range(0, BATCH, BATCH // 2):
            self._decoder(self._files[start : start + BATCH // 2], SIZE, self._downscale)

    def network(self) -> None:
        """Predict a batch that is decoded."""
        self._predictor.run_bounds_mixed(self._gray, [SIZE] * BATCH)

    def both(self) -> None:
        """Predict a batch of files."""
        how = self._downscale, self._device, self._decoder
        no_gray = [np.empty((0, 0), np.uint8)] * BATCH
        batch = EncodedImages(self._files, no_gray, [SIZE] * BATCH, *how)
        self._predictor.run_bounds_mixed(batch, [SIZE] * BATCH)

    def measure(self, name: str, threads: int = 1) -> tuple[float, float]:
        """Return images per second and busy cores of a method in several threads."""
        work = getattr(self, name)
        work()
        end = time.perf_counter() + SECONDS

        def repeat(_: int) -> int:
            count = 0
            while time.perf_counter() < end:
                work()
                count += BATCH
            return count

        began, used = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(threads) as pool:
            count = sum(pool.map(repeat, range(threads)))
        seconds = time.perf_counter() - began
        return round(count / seconds, 1), round((time.process_time() - used) / seconds, 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with images in test/")
    parser.add_argument("--model", required=True, help="model folder")
    flags = parser.parse_args()
    rates = Rates(flags.data / "test", flags.model)
    found = {"engines": rates.measure("engines")}
    for threads in (1, 2):
        found[f"network, {threads} calls"] = rates.measure("network", threads)
    for threads in (1, 2, 3, 4):
        found[f"{threads} calls"] = rates.measure("both", threads)
    for name, (rate, cores) in found.items():
        print(f"{name:18} {rate:8.1f} images/s  {cores:5.2f} cores")
    print(json.dumps({"benchmark": "engines", "device": torch.cuda.get_device_name(), **found}))


if __name__ == "__main__":
    main()
