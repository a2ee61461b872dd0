"""examples/minimal.py against the program: whole-process seconds at equal settings.

    python benchmarks/minimal.py --data FOLDER [--downscale 8] [--base 8] [--epochs 12] [--rounds 1]

Both train on FOLDER/train and write a submission for FOLDER/test, in turn. Both have the same
network, images, epochs and batch size. FOLDER comes from `carvana-ray sample`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# The constants of the example are set before its functions are pickled by value.
EXAMPLE = """
import sys
from pathlib import Path
from ray import cloudpickle
sys.path.insert(0, {folder!r})
import minimal
minimal.DOWNSCALE, minimal.BASE, minimal.BATCH_SIZE, minimal.EPOCHS = {settings}
cloudpickle.register_pickle_by_value(minimal)
minimal.main(Path({data!r}), Path({out!r}))
"""


def seconds_of(command: list[str]) -> float:
    """Run a command, which must succeed; return its wall-clock seconds."""
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.monotonic() - start


def run_example(flags: argparse.Namespace, out: Path) -> float:
    """Run examples/minimal.py with the settings of the flags."""
    settings = (flags.downscale, flags.base, flags.batch_size, flags.epochs)
    folder, data = str(REPOSITORY / "examples"), str(flags.data)
    code = EXAMPLE.format(folder=folder, settings=settings, data=data, out=str(out))
    return seconds_of([sys.executable, "-c", code])


def run_program(flags: argparse.Namespace, out: Path) -> tuple[float, float]:
    """Run train and predict as commands; return the seconds of each."""
    common = ["--data", str(flags.data), "--out", str(out), "--quiet"]
    network = ["--downscale", str(flags.downscale), "--base", str(flags.base)]
    cars = ["--holdout-cars", "0", "--val-cars", "0"]
    length = ["--epochs", str(flags.epochs), "--batch-size", str(flags.batch_size)]
    jobs = REPOSITORY / "jobs"
    trained = seconds_of([sys.executable, f"{jobs}/train.py", *common, *network, *cars, *length])
    predict = [sys.executable, f"{jobs}/predict.py", *common, "--ray", "always"]
    return trained, seconds_of(predict)


def main() -> None:
    """Print a table for people, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in Kaggle's layout")
    for name, default in (("downscale", 8), ("base", 8), ("batch-size", 8), ("epochs", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=1)
    flags = parser.parse_args()
    flags.data = flags.data.resolve()
    rows = []
    for number in range(flags.rounds):
        with tempfile.TemporaryDirectory() as folder:
            example = run_example(flags, Path(folder) / "example")
            train, predict = run_program(flags, Path(folder) / "program")
        rows.append({"example": example, "train": train, "predict": predict})
        ratio = example / (train + predict)
        print(
            f"round {number + 1}: example {example:.1f} s, program {train:.1f} + {predict:.1f} s, "
            f"ratio {ratio:.2f}"
        )
    print(json.dumps({"benchmark": "minimal", "seconds": rows}))


if __name__ == "__main__":
    main()
