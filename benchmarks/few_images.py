"""A few images without Ray and with it: seconds of the whole command, start and end included.

    python benchmarks/few_images.py --images FOLDER --model MODEL [--counts 1 16 128] [--rounds 5]

Runs `cutout` on the first images of FOLDER, in turn without Ray and with it, and compares the
cut-outs. Prints the load of the machine before each pair of runs, then the medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def seconds_of(images: Path, model: str | Path, out: Path, *flags: str) -> float:
    """Cut out a folder of images anew; return the seconds of the command, which must succeed."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(REPOSITORY / "jobs/cutout.py"), "--data", str(images)]
    command += ["--model", str(model), "--out", str(out), "--quiet", *flags]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.monotonic() - start


def cutouts_in(out: Path) -> dict[str, bytes]:
    """Return the cut-outs of a run by name."""
    return {path.name: path.read_bytes() for path in out.glob("cutouts/*.png")}


def measure(images: Path, model: Path, rounds: int, home: Path) -> dict[str, list[float]]:
    """Return the seconds of each run, in turn without Ray and with it."""
    seconds: dict[str, list[float]] = {"auto": [], "always": []}
    for number in range(rounds):
        print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", end="", flush=True)
        made = {}
        for ray in seconds:
            out = home / ray
            seconds[ray].append(seconds_of(images, model, out, "--ray", ray))
            made[ray] = cutouts_in(out)
            print(f", {ray} {seconds[ray][-1]:.1f} s", end="", flush=True)
        print()
        if made["auto"] != made["always"]:
            raise SystemExit("the cut-outs differ")
    return seconds


def main() -> None:
    """Print a line for each round, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    rows = []
    for count in flags.counts:
        with tempfile.TemporaryDirectory(prefix="few-") as folder:
            photos = Path(folder) / "photos"
            photos.mkdir()
            for path in sorted(flags.images.glob("*.jpg"))[:count]:
                shutil.copy(path, photos)
            seconds = measure(photos, flags.model, flags.rounds, Path(folder))
        medians = {ray: round(statistics.median(values), 2) for ray, values in seconds.items()}
        rows.append({"images": count, **medians, "seconds": seconds})
        print(f"{count} images: {medians['auto']} s without Ray, {medians['always']} s with it")
    print(json.dumps({"benchmark": "few_images", "cores": os.cpu_count(), "rows": rows}))


if __name__ == "__main__":
    main()
