"""What a benchmark ran on, and commands that use a part of the machine."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """Return the GPU, its count, the cores that this process may use, and versions."""
    import ray  # takes a second that a process of a pool does not need

    gpus = torch.cuda.device_count()
    return {
        "device": torch.cuda.get_device_name() if gpus else "cpu",
        "gpus": gpus,
        "cores": cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def use_cores(count: int | None) -> None:
    """Limit this process and its children to the first `count` of its cores."""
    if count:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def job(name: str, *flags: object) -> list[str]:
    """Return the command ``jobs/NAME.py``; it uses the cores that this process may use."""
    command = [sys.executable, str(REPOSITORY / "jobs" / f"{name}.py"), *map(str, flags)]
    # Ray counts all cores of the machine.
    return command if cores() == os.cpu_count() else [*command, "--num-cpus", str(cores() + 1)]


def environment(gpus: int | None = None) -> dict[str, str]:
    """Return the environment of a command that sees the first `gpus` GPUs; None: all."""
    found = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"}
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(gpus)))
    return found


def run(command: list[str], gpus: int | None = None) -> dict[str, Any]:
    """Run a command; return the JSON object of its last line, and its seconds as `command_s`."""
    began = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=environment(gpus)
    )
    seconds = round(time.perf_counter() - began, 1)
    return {**json.loads(done.stdout.splitlines()[-1]), "command_s": seconds}


def link(source: list[Path], folder: Path, names: list[str]) -> None:
    """Link the files in turn under `names` in a new folder."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        os.symlink(source[number % len(source)].resolve(), folder / name)


def print_result(benchmark: str, **values: Any) -> None:
    """Print the JSON object of a benchmark as one line."""
    print(json.dumps({"benchmark": benchmark, **describe(), **values}))
