"""Compare the losses of steps that take different paths, and of a run that was killed and resumed.

    python benchmarks/losses.py --data FOLDER [--recipes default best] [--steps 200] [--images 256]

Each run has the same weights, images and moves. Both paths run twice: on a GPU some sums have no
fixed order, so that not even two equal runs agree to the bit, and training magnifies each rounding.
The resumed run is one of the second path: it begins from the state after half of the steps, which
went through a file, with a new network, optimizer and scaler. Printed are relative differences of
the losses of single steps. `--job-epochs N` also trains by jobs/train.py: twice, and once killed
after half of the epochs and started again; printed is the largest relative difference of the losses
of epochs. Other flags go to the job. The last line is one JSON object.
"""

import argparse
import io
import itertools
import json
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from in_memory import PATHS, Way, batches, begin, job_path, load_all, pairs_of, plan_of, run
from numpy.typing import NDArray

from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import Batch, TrainState

Losses = NDArray[np.float64]  # of each step


def losses_of(state: TrainState, ready: list[Batch], plan: BatchPlan) -> Losses:
    """Train to the end of the plan; its epochs have one step each, so their rows are the steps'."""
    return np.array([row["loss"] for row in run(state, ready[state.epoch :], plan)])


def resume(recipe: Recipe, ready: list[Batch], plan: BatchPlan, path: str) -> Losses:
    """Return the losses of a run that ends after half of its steps and is resumed from a file."""

    class KilledError(Exception):
        pass

    file = io.BytesIO()

    def until_killed() -> Any:
        yield from ready[: plan.epochs // 2]
        torch.save(state.state_dict(), file)
        raise KilledError

    state = begin(plan, recipe, ready[0], Way(path))
    try:
        run(state, until_killed(), plan)
    except KilledError:
        file.seek(0)
    torch.manual_seed(99)  # as of another process
    again = begin(plan, recipe, ready[0], Way(path))
    again.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
    return losses_of(again, ready, plan)


def differences(found: Losses, wanted: Losses) -> dict[str, float]:
    """Return the largest relative difference of the first 10, 50 and all steps, and the mean."""
    relative = np.abs(found - wanted) / np.abs(wanted)
    first = {f"first_{count}": float(relative[:count].max()) for count in (10, 50)}
    return {**first, "all": float(relative.max()), "mean": float(relative.mean())}


def compare(recipe: Recipe, data: torch.Tensor, steps: int, paths: list[str]) -> dict[str, Any]:
    """Return the differences of the second path from the first, of each from itself, resumed."""
    epochs = -(-steps * recipe.batch_size // data.shape[1])
    drawn = batches(plan_of(recipe, data.shape[1], epochs), recipe, data)
    ready = list(itertools.islice(drawn, steps))
    plan = plan_of(recipe, recipe.batch_size, len(ready))  # a step an epoch
    before, again, after, after_again = (
        losses_of(begin(plan, recipe, ready[0], Way(path)), ready, plan)
        for path in (paths[0], paths[0], paths[1], paths[1])
    )
    old, new = paths
    return {
        "steps": len(ready),
        "losses": [float(before[0]), float(before[-1])],
        f"{old} and {old} again": differences(again, before),
        f"{old} and {new}": differences(after, before),
        f"{new} and {new} again": differences(after_again, after),
        f"{new} and {new} resumed": differences(resume(recipe, ready, plan, new), after),
    }


def job_losses(out: Path, command: list[str], kill_after: int | None = None) -> Losses:
    """Run a training command; return the loss of each epoch, also in validation: [2, epochs].

    With `kill_after` the first attempt is killed when the checkpoint of that epoch is there.
    """
    if kill_after:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=machine.environment())
        while not list(out.glob(f"checkpoints/*/epoch-{kill_after:04d}/manifest.json")):
            if process.poll() is not None:
                raise SystemExit(f"{shlex.join(command)}: ended before epoch {kill_after}")
            time.sleep(0.02)
        process.kill()
        process.wait()
    machine.run(command)
    history = json.loads((out / "model/history.json").read_text())
    return np.array([[row[key] for row in history] for key in ("loss", "val_loss")])


def compare_jobs(flags: argparse.Namespace, recipe: str, epochs: int) -> dict[str, float]:
    """Return the differences of a job from the same job, and from one that was killed."""
    losses = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, kill_after in (("job", None), ("job again", None), ("killed", epochs // 2)):
            out = Path(scratch, kind)
            command = machine.job("train", "--data", flags.data, "--out", out, "--recipe", recipe)
            command += ["--holdout-cars", "0", "--val-cars", "0.1", "--epochs", str(epochs)]
            losses[kind] = job_losses(out, command + flags.job_flags, kill_after)
    whole = losses.pop("job")
    return {kind: float(np.abs(other / whole - 1).max()) for kind, other in losses.items()}


def main() -> None:
    """Print the differences of each recipe, then the JSON object."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    reader.add_argument("--data", type=Path, required=True, help="folder with train/, train_masks/")
    reader.add_argument("--recipes", nargs="+", default=["default", "best"], choices=list(RECIPES))
    reader.add_argument("--paths", nargs=2, default=["eager", job_path()], choices=PATHS)
    reader.add_argument("--steps", type=int, default=200)
    reader.add_argument("--images", type=int, default=256, help="from the first name on")
    reader.add_argument("--job-epochs", type=int, default=0, help="of jobs, one of them killed")
    flags, flags.job_flags = reader.parse_known_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = pairs_of(flags.data)[: flags.images]
    compared: dict[str, dict[str, Any]] = {name: {} for name in flags.recipes}
    for name in flags.recipes:
        recipe = RECIPES[name]
        if flags.steps:
            data = load_all(pairs, recipe.downscale, device)
            compared[name] |= compare(recipe, data, flags.steps, flags.paths)
            data = None
        if flags.job_epochs:
            compared[name] |= compare_jobs(flags, name, flags.job_epochs)
        print(name, compared[name], flush=True)
    machine.print_result("losses", images=len(pairs), compared=compared)


if __name__ == "__main__":
    main()
