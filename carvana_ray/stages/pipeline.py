"""The main job: everything in order, each step going on from what is there.

sample (or given data) -> train -> evaluate -> predict -> a table of what came out
"""

import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from carvana_ray import config, storage
from carvana_ray.stages import evaluate, predict, sample, train
from carvana_ray.stages.session import Cluster


def run(flags: config.Pipeline, cluster: Cluster) -> dict[str, Any]:
    """Run all steps; return the job's result."""
    began = time.monotonic()
    out = storage.absolute(flags.out)
    steps: dict[str, dict[str, Any]] = {}
    data = flags.data
    if not data:
        data = storage.join(out, "sample")
        steps["sample"] = sample.run(config.pick(config.Sample, flags, out=data), cluster)
    steps["train"] = train.run(config.pick(config.Train, flags, data=data), cluster)
    # All held-out cars are scored: --limit is for training and prediction.
    scored = config.pick(config.Evaluate, flags, data=data, limit=0)
    steps["evaluate"] = evaluate.run(scored, cluster)
    steps["predict"] = predict.run(config.pick(config.Predict, flags, data=data), cluster)
    _show(steps, out)
    return {
        "dice": steps["evaluate"]["dice"],
        "submission": steps["predict"]["submission"],
        "report": steps["evaluate"]["report"],
        "seconds": round(time.monotonic() - began, 1),
    }


def _show(steps: dict[str, dict[str, Any]], out: str) -> None:
    """Print a table for people: each step, its pictures, seconds and results."""
    trained, scored, made = steps["train"], steps["evaluate"], steps["predict"]
    table = Table("step", "pictures", "pictures/s", "seconds", "result", "where")
    if drawn := steps.get("sample"):
        table.add_row(
            "sample", f"{drawn['images']}", "", f"{drawn['seconds']}", "", str(drawn["data"])
        )
    table.add_row(
        "train",
        f"{trained['images']}",
        f"{trained['images_per_second']}",
        f"{trained['seconds']}",
        "no validation" if trained["val_dice"] is None else f"val Dice {trained['val_dice']:.4f}",
        str(trained["model"]),
    )
    table.add_row(
        "evaluate",
        f"{scored['images']}",
        "",
        f"{scored['seconds']}",
        f"Dice {scored['dice']:.4f}",
        str(scored["report"]),
    )
    table.add_row(
        "predict",
        f"{made['images']}",
        f"{made['images_per_second']}",
        f"{made['seconds']}",
        f"{made['shards']} shards, checked",
        str(made["submission"]),
    )
    table.add_row("look at", "", "", "", "contact sheets", storage.join(out, "sheets"))
    console = Console(file=sys.stderr, soft_wrap=True)
    console.print(table)
