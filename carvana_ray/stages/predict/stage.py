"""Prediction: an image catalog in, run-length shards and a validated submission out.

    plan_run           catalog and model -> the shards that are still to make
    predict_pending    read_images -> MaskPredictor (replicas on GPUs or CPUs) -> write_shards
    publish            shards -> submission, review, report, contact sheets

After a crash the same command continues: the plan and the shards alone determine the rest.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from carvana_ray import storage
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import describe_model, load_model
from carvana_ray.config import PredictFlags
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.listing import log_skipped
from carvana_ray.data.quarantine import NOT_LISTED, FailureLimits
from carvana_ray.errors import IncompleteError
from carvana_ray.report import figures
from carvana_ray.runtime.preflight import announce, describe_workers
from carvana_ray.runtime.progress import ProgressMeter, StageTimer
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.engine import Engine, LastMap
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.crash_isolation import run_with_isolation
from carvana_ray.stages.ingest.read_images import block_row
from carvana_ray.stages.predict.plan_run import PredictInput, PredictRun, list_input, plan_run
from carvana_ray.stages.predict.publish import Review, publish, start_review
from carvana_ray.stages.predict.write_shards import write_shards
from carvana_ray.stages.ray_metrics import meter
from carvana_ray.storage import FileInfo
from carvana_ray.submission import merge, shards
from carvana_ray.submission.merge import MergeSummary, OvertakenError
from carvana_ray.submission.shards import ShardTask

log = logging.getLogger(__name__)

MAX_ROUNDS = 5  # listings of the images, each after another run has published meanwhile
WRITERS_OF_A_GPU, WRITERS = 4, 2  # at a time, for each worker; a shard takes 20 ms of a core


def check(flags: PredictFlags) -> PredictInput:
    """Return the model's manifest, the images and the state of the submission.

    Raises:
        InputError: the model or the images cannot be used, or --out cannot be written.
    """
    _, manifest = load_model(resolve_model(flags.model_uri))
    storage.require_writable(storage.resolve(flags.out))
    return list_input(flags, manifest)


def run(
    flags: PredictFlags,
    cluster: ClusterResources,
    checked: PredictInput | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Predict the masks that do not exist yet, publish the submission, return the job's result.

    Runs may share --out. If another one publishes after this one has listed the images, this one
    lists them again, so that the submission that stays is of the newest listing.

    Args:
        flags: of the job.
        cluster: where to run.
        checked: the result of `check`, if the caller has it.
        engine: calls the maps; None for the open Ray session.

    Raises:
        BadImagesError: images could not be read, and the flags do not allow empty masks for them.
        IncompleteError: images could not be reached, or shards could not be written.
    """
    began, timer = time.monotonic(), StageTimer()
    start = checked or check(flags)
    made, rate = 0, 0.0
    for rounds_left in reversed(range(MAX_ROUNDS)):
        prediction = plan_run(flags, cluster, start, engine)
        announce_run(prediction)
        timer.end("plan, compare with what is there")
        made += len(prediction.pending.tasks)
        rate = predict_pending(prediction) or rate
        timer.end("read, predict, write shards")
        try:
            merged, reviewing = merge_and_review(prediction)
            break
        except OvertakenError as error:
            if not rounds_left:
                raise IncompleteError(f"{error}, {MAX_ROUNDS} times. Run again") from error
            log.info("%s; listing the images again", error)
            start = list_input(flags, start.manifest)
        finally:
            timer.end("merge and check")
    needed = prediction.pending.needed
    result = {
        "images": len(prediction.catalog.order),
        "bad": len(merged.bad),
        **({"corrected": merged.corrected} if flags.corrections else {}),
        "skipped": dict(prediction.catalog.skipped),
        "shards": needed,
        "resumed_shards": max(needed - made, 0),
        "images_per_second": round(rate, 1),
        "seconds": round(time.monotonic() - began, 1),
        "submission": storage.resolve(flags.submission_uri),
    }
    publish(prediction, merged, reviewing, result, timer)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def merge_and_review(run: PredictRun) -> tuple[MergeSummary, Future[Review]]:
    """Publish the submission, and review the masks on the cores that the merge leaves idle.

    Raises:
        OvertakenError, IncompleteError: see `merge.merge_shards`. The review has ended.
    """
    merging = Future[MergeSummary]()
    reviewing = start_review(run, merging)
    try:
        merging.set_result(merge_run(run))
    except Exception as error:
        merging.set_exception(error)
        wait([reviewing])  # it uses Ray, which may not be closed meanwhile
        raise
    return merging.result(), reviewing


def merge_run(run: PredictRun) -> MergeSummary:
    """Publish the submission, see `merge.merge_shards`."""
    cars = figures.SHEET_CARS
    return merge.merge_shards(run.flags, run.parts, run.folder, run.catalog, run.published, cars)


def announce_run(run: PredictRun) -> None:
    """Log in one line what will be predicted, and mark the run as unfinished."""
    total = len(run.catalog.entries)
    summary = f"{count_of(total, 'images', total - run.pending.images)}; "
    summary += describe_model(run.manifest)
    announce("predict", summary, run.out, describe_workers(run.workers))
    log_skipped(run.catalog.skipped)
    run.corrections.log(run.flags.corrections)
    storage.remove(storage.join(run.folder, merge.SUCCESS))


def predict_pending(run: PredictRun) -> float:
    """Make the pending shards; return the steady rate in images per second."""
    # In random order: see `FailureLimits.add_block`.
    tasks, workers = random.sample(run.pending.tasks, len(run.pending.tasks)), run.workers
    if not tasks:
        return 0.0
    limits = failure_limits(run.flags, run.catalog.folder, len(run.catalog.entries))
    engine, masks = run.engine, run.masks

    with meter("predict", run.pending.images) as progress:
        tally = ShardTally(limits, progress, run.pending.bad)

        def make_shards(
            tasks: Sequence[ShardTask], preset_status: Mapping[FileInfo, str], max_lost: int
        ) -> set[str]:
            rows = block_rows(run.catalog, tasks, preset_status)
            blocks = engine.chain(rows, masks, shard_writer(run, tasks), max_lost)
            return {tally.add(row) for block in blocks for row in _rows_of(block)}

        with run.model.blamed():
            run_with_isolation(
                tasks,
                make_shards,
                engine.try_chain(masks),
                engine.held * workers.count,
                run.pending.crashing,
            )
            limits.raise_if_failed()
    return progress.rate


def shard_writer(run: PredictRun, tasks: Sequence[ShardTask]) -> LastMap:
    """Return the last map of the chain from listed images to shards.

    Without a bound Ray starts a process for each waiting block, and a start takes longer than a
    write.
    """
    run_id = storage.name(run.folder)
    keys = {task.name: shards.shard_key(run_id, task.part, task.shard) for task in tasks}
    damaged = {task.name for task in tasks if task.replace}
    write = partial(write_shards, folder=run.folder, keys=keys, replace=damaged)
    at_once = run.workers.count * (WRITERS_OF_A_GPU if run.workers.use_gpu else WRITERS)
    return LastMap(write, min(len(tasks), at_once), tables=True)


def block_rows(
    catalog: Catalog, tasks: Sequence[ShardTask], preset_status: Mapping[FileInfo, str]
) -> list[dict[str, Any]]:
    """Return the input row of `read_images` for each shard.

    Images that were planned for an earlier catalog and are not in this one must not be read.
    """
    listed = set(catalog.entries)
    rows = []
    for task in tasks:
        removed = dict.fromkeys(set(task.entries) - listed, NOT_LISTED)
        rows.append(block_row(task.name, task.entries, catalog.crcs, {**preset_status, **removed}))
    return rows


def _rows_of(block: Columns) -> list[dict[str, Any]]:
    columns = (column.tolist() for column in block.values())
    return [dict(zip(block, row, strict=True)) for row in zip(*columns, strict=True)]


@dataclass
class ShardTally:
    """Adds up the rows of `write_shards` and ends the run when too much goes wrong."""

    limits: FailureLimits
    progress: ProgressMeter
    bad: int  # images so far, those in the shards of earlier runs included

    def add(self, row: dict[str, Any]) -> str:
        """Add the row of one shard; return the shard's file.

        Raises:
            InputError: too many bad images.
            IncompleteError: nothing could be done in several shards in a row.
        """
        self.bad += row["bad"]
        if row["bad"]:
            self.limits.count_bad(self.bad, row["example"])
        self.limits.add_block([row["problem"]] if row["problem"] else [], row["usable"])
        if not self.progress.done:
            log.debug("the first shard is written")
        self.progress.set(self.progress.done + row["rows"])
        return row["file"]


def failure_limits(flags: PredictFlags, folder: str, images: int) -> FailureLimits:
    """Return the number of failures that a prediction of a folder's images allows."""
    allowed = flags.max_bad if flags.on_bad_picture == "empty" else 0
    return FailureLimits(folder, images, "shard", allowed)
