"""The main job: everything in order, each step going on from what is there.

sample (or given data) -> train -> evaluate -> predict -> a table of what came out
"""

import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from carvana_ray import config, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.config import cli
from carvana_ray.data import catalog as catalogue
from carvana_ray.errors import BadImagesError
from carvana_ray.report import builder as parts
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.resources import ClusterResources, allocate_workers
from carvana_ray.stages import evaluate, sample
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.train import stage as train
from carvana_ray.training import finetune
from carvana_ray.training import tensorboard as events


def check(flags: config.PipelineFlags) -> None:
    """Raise `InputError` if a step cannot run with these flags or this data."""
    if flags.data:
        train.check(_train(flags, flags.data))
        catalogue.load_catalog(flags.data, flags.limit, flags.partial)
    else:
        if flags.tensorboard:
            events.require_writer()
        sample.check(cli.subset(config.SampleFlags, flags, out=_sample_folder(flags)))
        finetune.resolve_flags(_train(flags, flags.data), finetune.load_base_manifest(flags))


def _sample_folder(flags: config.PipelineFlags) -> str:
    return storage.join(storage.resolve(flags.out), "sample")


def _train(flags: config.PipelineFlags, data: str) -> config.TrainFlags:
    return cli.subset(config.TrainFlags, flags, data=data, on_bad_picture="fail")


def run(
    flags: config.PipelineFlags, cluster: ClusterResources, _checked: None = None
) -> dict[str, Any]:
    """Run all steps; return the job's result."""
    began = time.monotonic()
    out = storage.resolve(flags.out)
    steps: dict[str, dict[str, Any]] = {}
    order = "train, evaluate, predict" if flags.data else "sample, train, evaluate, predict"
    outlook.announce("pipeline", f"{order}; finished steps are skipped", out)
    allocate_workers(flags, cluster)  # what cannot be is said before anything is trained
    data = flags.data
    if not data:
        data = _sample_folder(flags)
        steps["sample"] = sample.run(cli.subset(config.SampleFlags, flags, out=data), cluster)
    steps["train"] = train.run(_train(flags, data), cluster)
    # All held-out cars are scored: --limit is for training and prediction.
    scored = cli.subset(config.EvaluateFlags, flags, data=data, limit=0)
    steps["evaluate"] = evaluate.run(scored, cluster)
    held_back = None
    try:
        steps["predict"] = predict.run(cli.subset(config.PredictFlags, flags, data=data), cluster)
    except BadImagesError as error:
        steps["predict"], held_back = error.result, str(error)
    manifest = checkpoint.load_manifest(steps["train"]["model"])
    seconds = {name: step["seconds"] for name, step in steps.items()}
    parts.add_section(out, "pipeline", {"model": manifest.sha256, "seconds": seconds})
    if not flags.quiet:
        _show(steps, out)
    result = {
        "dice": steps["evaluate"]["dice"],
        "submission": steps["predict"]["submission"],
        "report": steps["evaluate"]["report"],
        "seconds": round(time.monotonic() - began, 1),
    }
    if held_back:
        raise BadImagesError(held_back, result)
    return result


def _show(steps: dict[str, dict[str, Any]], out: str) -> None:
    """Print a table for people, and where each result lies."""
    trained, scored, made = steps["train"], steps["evaluate"], steps["predict"]
    learned = trained["val_dice"]
    results = {
        "train": "no validation" if learned is None else f"validation Dice {learned:.4f}",
        "evaluate": f"Dice {scored['dice']:.4f} at full size",
        "predict": f"{made['bad']} bad pictures, see quarantine.csv"
        if made["submission"] is None
        else f"{made['shards']} shards, submission checked",
    }
    table = Table("step", "pictures", "pictures/s", "seconds", "result")
    for name, step in steps.items():
        rate = step.get("images_per_second", "")
        table.add_row(name, f"{step['images']}", f"{rate}", f"{step['seconds']}", results.get(name))
    console = Console(file=sys.stderr, soft_wrap=True, highlight=False)
    console.print(table)
    for what, where in (
        ("model", trained["model"]),
        ("curves", storage.join(out, "loss.png accuracy.png dice.png")),
        ("report", scored["report"]),
        ("contact sheets", storage.join(out, "sheets")),
        ("submission", made["submission"]),
    ):
        console.print(f"{what:15} {where or 'held back'}")
