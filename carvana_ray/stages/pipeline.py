"""The pipeline: sample (unless --data is given) -> train -> evaluate -> predict -> a table.

Each step skips the work that an earlier run has finished. If all steps are finished, Ray is not
started.
"""

import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from carvana_ray import config, storage
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config import cli
from carvana_ray.data.catalog import load_catalog
from carvana_ray.errors import BadImagesError, IncompleteError
from carvana_ray.report.builder import add_section
from carvana_ray.runtime.machine import local_resources
from carvana_ray.runtime.preflight import announce
from carvana_ray.runtime.resources import ClusterResources, allocate_workers
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import evaluate, receipts, sample
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.predict.plan_run import PredictInput
from carvana_ray.stages.train import stage as train
from carvana_ray.stages.train.log_forecast import log_prediction
from carvana_ray.stages.train.plan import check_run, is_finished
from carvana_ray.training import finetune, tensorboard

log = logging.getLogger(__name__)

Results = dict[str, dict[str, Any]]  # the result of each step


def check(flags: config.PipelineFlags) -> None:
    """Raise `InputError` if a step cannot run with these flags or this data."""
    if flags.data:
        train_flags = _train_flags(flags, flags.data)
        training = train.check(train_flags)
        catalog = load_catalog(flags.data, flags.limit, flags.partial)
        resolved = finetune.resolve_flags(train_flags, training.base_model)
        log_prediction(resolved, training, len(catalog.entries))
        return
    if flags.tensorboard:
        tensorboard.require_writer()
    sample.check(_sample_flags(flags))
    finetune.resolve_flags(_train_flags(flags, data=""), finetune.load_base_manifest(flags))


def run(
    flags: config.PipelineFlags, cluster: ClusterResources, _checked: None = None
) -> dict[str, Any]:
    """Run all steps; return the job's result.

    Raises:
        BadImagesError: test images cannot be used; the other steps are complete.
    """
    began = time.monotonic()
    _announce(flags)
    allocate_workers(flags, cluster)  # fails now if the workers of a later step do not fit
    results, model, bad_images = _run_steps(flags, cluster)
    seconds = {name: result["seconds"] for name, result in results.items()}
    part = {"model": model.sha256, "seconds": seconds}
    add_section(storage.resolve(flags.out), "pipeline", part)
    result = _conclude(flags, results, began)
    if bad_images:
        raise BadImagesError(bad_images, result)
    return result


def run_finished(flags: config.PipelineFlags) -> dict[str, Any] | None:
    """Return the job's result without Ray if all steps are finished, else None.

    Only the curves are drawn again; the report keeps the seconds of the run that made it.

    Raises:
        InputError: as `check` does.
    """
    began = time.monotonic()
    machine = local_resources(flags.num_cpus)
    allocate_workers(flags, machine)
    results: Results = {}
    data = flags.data
    if not data:
        sample_flags = _sample_flags(flags)
        sample.check(sample_flags)
        if not sample.is_drawn(sample_flags):
            return None
        data = sample_flags.out
        results["sample"] = sample.run(sample_flags, machine)
    train_flags = _train_flags(flags, data)
    training = check_run(train_flags)
    if not is_finished(storage.join(storage.resolve(flags.out), "model"), training):
        return None
    _, evaluation, scored = _check_evaluation(flags, data)
    _, prediction, predicted = _check_prediction(flags, data)
    same = evaluation.manifest.sha256 == prediction.manifest.sha256
    evaluated, submitted = _finished(flags, scored), _finished(flags, predicted)
    if not (evaluated and submitted and same and evaluation.manifest.run == training.run_id):
        return None
    _announce(flags)
    log.info("all steps are finished, and nothing has changed: runs without Ray")
    results["train"] = train.run(train_flags, machine, training)
    results |= {"evaluate": evaluated, "predict": submitted}
    return _conclude(flags, results, began)


def _announce(flags: config.PipelineFlags) -> None:
    steps = "train, evaluate, predict" if flags.data else "sample, train, evaluate, predict"
    announce("pipeline", f"{steps}; finished work is skipped", storage.resolve(flags.out))


def _conclude(flags: config.PipelineFlags, results: Results, began: float) -> dict[str, Any]:
    """Print the table; return the job's result."""
    if not flags.quiet:
        _print_table(results, storage.resolve(flags.out))
    return {
        "dice": results["evaluate"]["dice"],
        "submission": results["predict"]["submission"],
        "report": results["evaluate"]["report"],
        "seconds": round(time.monotonic() - began, 1),
    }


def _sample_flags(flags: config.PipelineFlags) -> config.SampleFlags:
    folder = storage.join(storage.resolve(flags.out), "sample")
    return cli.subset(config.SampleFlags, flags, out=folder)


def _train_flags(flags: config.PipelineFlags, data: str) -> config.TrainFlags:
    return cli.subset(config.TrainFlags, flags, data=data, on_bad_picture="fail")


def _run_steps(
    flags: config.PipelineFlags, cluster: ClusterResources
) -> tuple[Results, ModelManifest, str]:
    """Run the steps with one model.

    Returns:
        The results of the steps, the model, and the message about bad images, "" without any.

    Raises:
        IncompleteError: another training has written its model to the same folder meanwhile.
    """
    results: Results = {}
    data = flags.data
    if not data:
        sample_flags = _sample_flags(flags)
        data = sample_flags.out
        results["sample"] = sample.run(sample_flags, cluster)
    train_flags = _train_flags(flags, data)
    training = train.check(train_flags)
    results["train"] = train.run(train_flags, cluster, training)
    evaluate_flags, evaluation, receipt = _check_evaluation(flags, data)
    model = evaluation.manifest
    _require(model.run == training.run_id, evaluation.model)
    if finished := _finished(flags, receipt):
        log.info("evaluate: finished earlier, and nothing has changed")
        results["evaluate"] = finished
    else:
        results["evaluate"] = evaluate.run(evaluate_flags, cluster, evaluation)
        receipts.write_evaluation(receipt, results["evaluate"])
    predict_flags, prediction, receipt = _check_prediction(flags, data)
    _require(prediction.manifest.sha256 == model.sha256, evaluation.model)
    try:
        results["predict"] = predict.run(predict_flags, cluster, prediction)
    except BadImagesError as error:
        results["predict"] = error.result
        return results, model, str(error)
    receipts.write_prediction(receipt, predict_flags, results["predict"])
    return results, model, ""


def _check_evaluation(
    flags: config.PipelineFlags, data: str
) -> tuple[config.EvaluateFlags, evaluate.EvaluationJob, receipts.Receipt]:
    # --limit applies to training and prediction; all held-out cars are scored.
    evaluate_flags = cli.subset(config.EvaluateFlags, flags, data=data, limit=0)
    job = evaluate.check(evaluate_flags)
    return evaluate_flags, job, receipts.of_evaluation(evaluate_flags, job)


def _check_prediction(
    flags: config.PipelineFlags, data: str
) -> tuple[config.PredictFlags, PredictInput, receipts.Receipt]:
    predict_flags = cli.subset(config.PredictFlags, flags, data=data)
    given = predict.check(predict_flags)
    return predict_flags, given, receipts.of_prediction(predict_flags, given)


def _finished(flags: config.PipelineFlags, receipt: receipts.Receipt) -> dict[str, Any] | None:
    """Return the result of a step that has nothing to do, else None; a profile needs the work."""
    result = None if flags.profile else receipt.load()
    return {**result, "seconds": 0.0} if result else None


def _require(is_same: bool, model: str) -> None:
    """Raise `IncompleteError` if the model of a step is not the one that was trained."""
    if not is_same:
        raise IncompleteError(
            f"--out {model}: another training has written its model there meanwhile; end it or "
            "use another --out, then run again"
        )


def _print_table(results: Results, out: str) -> None:
    """Print a row for each step, and where its files are."""
    trained, scored, predicted = results["train"], results["evaluate"], results["predict"]
    dice, submission = trained["val_dice"], predicted["submission"]
    remarks = {
        "train": "no validation" if dice is None else f"validation Dice {dice:.4f}",
        "evaluate": f"Dice {scored['dice']:.4f} at full size",
        "predict": f"{count_of(predicted['shards'], 'shards')}, submission checked",
    }
    if not submission:
        bad = count_of(predicted["bad"], "bad images")
        remarks["predict"] = f"{bad}, see quarantine.csv"
    table = Table("step", "images", "images/s", "seconds", "result")
    for name, result in results.items():
        cells = result["images"], result.get("images_per_second", ""), result["seconds"]
        table.add_row(name, *map(str, cells), remarks.get(name))
    console = Console(file=sys.stderr, soft_wrap=True, highlight=False)
    console.print(table)
    files = {
        "model": trained["model"],
        "curves": storage.join(out, "loss.png accuracy.png dice.png"),
        "report": scored["report"],
        "contact sheets": storage.join(out, "sheets"),
        "submission": submission or "none, because of bad images",
    }
    for name, uri in files.items():
        console.print(f"{name:15} {uri}")
