"""Prediction: a catalogue in, run-length shards and a checked submission out.

plan -> load_pictures -> Masks (a replica a GPU) -> write_shards -> merge -> check

Whatever crashes, the same command again does what is left: `shards.left` says what that is, from
the plan and the shards alone.
"""

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from carvana_ray import config, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.data import catalog as catalogues
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.quarantine import FailureLimits
from carvana_ray.errors import BadImagesError, InputError
from carvana_ray.report import builder as reports
from carvana_ray.report import figures as sheets
from carvana_ray.report import provenance as lineage
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.progress import StageTimer
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.runtime.torch_trace import PROFILE_DIR
from carvana_ray.stages import ray_metrics as gauges
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import crash_isolation as poison
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.crash_isolation import LOST_A_REPLICA, LOST_BLOCKS
from carvana_ray.stages.ingest.read_images import ReadOptions
from carvana_ray.stages.predict import review_masks as review
from carvana_ray.stages.predict import write_shards as write
from carvana_ray.stages.predict.mask_predictor import predict_dataset, predict_one, read_options
from carvana_ray.submission import merge, plan, shards
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.shards import PendingShards, ShardTask

log = logging.getLogger(__name__)

Checked = tuple[ModelManifest, Catalog]
WRITERS_OF_A_GPU, WRITERS = 4, 2  # at a time, for each worker; a shard takes 20 ms of a core


def check(flags: config.PredictFlags) -> Checked:
    """Return the model's manifest and the pictures.

    Raises:
        InputError: model or pictures cannot be, or --out cannot be written.
    """
    _, manifest = checkpoint.load_model(storage.resolve(flags.model_uri))
    catalogue = catalogues.load_catalog(flags.data, flags.limit, flags.partial)
    storage.require_writable(storage.resolve(flags.out))
    return manifest, catalogue


def run(
    flags: config.PredictFlags, cluster: ClusterResources, checked: Checked | None = None
) -> dict[str, Any]:
    """Predict what is not there yet, merge, check; return the job's result.

    Args:
        flags, cluster: what to do, and where.
        checked: what `check` has returned, if it was asked already.

    Raises:
        Quarantined: pictures could not be read, and are not to be taken as empty.
        Unfinished: pictures could not be reached, or shards not be written.
    """
    began, laps = time.monotonic(), StageTimer()
    model, out = storage.resolve(flags.model_uri), storage.resolve(flags.out)
    manifest, catalogue = checked or check(flags)
    workers = allocate_workers(flags, cluster)
    settings = {"model": manifest.sha256, "downscale": manifest.downscale}
    if flags.decode != "cpu":  # whose runs are named as before there was a choice
        settings["decode"] = flags.decode
    run_id = plan.run_id({**settings, "data": catalogue.folder, "size": catalogue.size})
    folder = storage.join(out, "predict", run_id)
    for place in (out, folder, storage.join(folder, "shards")):
        storage.remove_stale_temps(place)
    parts = _plan(flags, folder, catalogue, plan.max_shard_size(manifest.downscale))
    left = shards.pending(folder, parts, catalogue.entries, _crcs(flags, catalogue))
    log.debug("planned: %d of %d shards to make", len(left.tasks), left.needed)
    for damage in left.damaged:
        log.warning("made again: %s", damage)
    if left.tasks and flags.merge_only:
        first = storage.join(folder, left.tasks[0].name)
        raise InputError(
            f"--merge-only: {len(left.tasks)} of {left.needed} shards are not there yet, the first "
            f"is {first}"
        )
    _foretell(left, catalogue, manifest, out, workers)
    storage.remove(storage.join(folder, merge.SUCCESS))  # until this run has ended well
    options = read_options(catalogue.folder, manifest, catalogue.size, workers)
    laps.end("plan, compare with what is there")
    rate = _predict(flags, left, catalogue, folder, options, model, workers)
    laps.end("read, predict, write shards")
    target = storage.join(out, flags.submission)
    merged = merge.merge_shards(flags, parts, folder, catalogue, target, sheets.SHEET_CARS)
    log.debug("merged and checked")
    laps.end("merge and check")
    result = {
        "images": len(catalogue.order),
        "bad": len(merged.bad),
        "shards": left.needed,
        "resumed_shards": left.needed - len(left.tasks),
        "images_per_second": round(rate, 1),
        "seconds": round(time.monotonic() - began, 1),
        "submission": target,
    }
    held_back = None
    try:
        merge.finish_run(flags, merged, folder, result)
    except BadImagesError as error:
        held_back, result = error, error.result
    reviewed, crcs = review.review_masks(out, folder, parts, catalogue, cluster.cpus)
    laps.end("look at the masks once more")
    part = {
        **lineage.provenance(flags, manifest, catalogue.folder, crcs),
        "result": result,
        "review": reviewed,
        "bad": [[row["img"], row["status"]] for row in merged.bad],
        "shown": sheets.unscored_figures(catalogue.folder, sheets.pick_rows(merged.sheet_rows)),
        "seconds": laps.seconds,
        "speed": {"Prediction: pictures a second": round(rate, 1)} if rate else {},
    }
    log.info("report: %s", reports.add_section(out, "predict", part))
    if held_back:
        raise held_back
    for name, image in sheets.car_sheets(catalogue.folder, merged.sheet_rows).items():
        storage.write_atomic(storage.join(out, "sheets", name), image, replace=True)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _foretell(
    left: PendingShards,
    catalogue: Catalog,
    manifest: ModelManifest,
    out: str,
    workers: WorkerAllocation,
) -> None:
    """Say what will be predicted, in one line."""
    pictures, to_do = len(catalogue.entries), sum(len(task.entries) for task in left.tasks)
    what = outlook.count_of(pictures, "pictures", pictures - to_do)
    where = outlook.describe_workers(workers)
    outlook.announce("predict", f"{what}; {checkpoint.describe_model(manifest)}", out, where)


def _plan(flags: config.PredictFlags, folder: str, catalogue: Catalog, most: int) -> list[PlanPart]:
    """Return the parts of the plan, with one more for what none of them has."""
    parts = plan.load_plan(folder)
    while new := plan.plan_new(parts, catalogue.entries, flags.shard_size, most):
        if flags.merge_only:
            raise InputError(f"--merge-only: {len(new.images)} pictures are in no plan yet")
        storage.write_atomic(storage.join(folder, new.name), new.to_bytes())
        parts = plan.load_plan(folder)  # another driver may have been first, with other pictures
    return parts


def _crcs(flags: config.PredictFlags, catalogue: Catalog) -> Mapping[str, int]:
    """Return the CRC-32 that pictures must have: as listed, or with --verify as they are today."""
    if not flags.verify:
        return catalogue.crcs
    names = [entry.name for entry in catalogue.entries]
    size = plan.shard_size(len(names))
    rows = [{"names": names[start : start + size]} for start in range(0, len(names), size)]
    read = dataset.from_blocks(rows).map_batches(
        functools.partial(reading.read_crcs, folder=catalogue.folder), batch_size=None, num_cpus=1
    )
    found: dict[str, int] = {}
    with gauges.meter("verify", len(names)) as meter:
        for batch in read.iter_batches(batch_size=None):
            found.update(zip(batch["img"].tolist(), batch["crc32"].tolist(), strict=True))
            meter.set(len(found))
    return {**found, **catalogue.crcs}


def limits_of(flags: config.PredictFlags, folder: str, pictures: int) -> FailureLimits:
    """Return what a prediction of pictures of a folder puts up with."""
    enough = flags.max_bad if flags.on_bad_picture == "empty" else 0
    return FailureLimits(folder, pictures, "shards", enough)


def _predict(
    flags: config.PredictFlags,
    left: PendingShards,
    catalogue: Catalog,
    folder: str,
    options: ReadOptions,
    model: str,
    workers: WorkerAllocation,
) -> float:
    """Make the shards that are to do; return the steady rate, pictures a second."""
    tasks = left.tasks
    if not tasks:
        return 0.0
    limits, bad = limits_of(flags, catalogue.folder, len(catalogue.entries)), left.bad
    profile = storage.join(storage.resolve(flags.out), PROFILE_DIR) if flags.profile else ""
    with gauges.meter("predict", sum(len(task.entries) for task in tasks)) as meter:

        def make(todo: Sequence[ShardTask], verdicts: Mapping[str, str], lost: int) -> set[str]:
            nonlocal bad
            rows = [
                reading.block_row(
                    task.name, [entry.name for entry in task.entries], catalogue.crcs, verdicts
                )
                for task in todo
            ]
            masks = predict_dataset(rows, options, model, workers, lost, profile)
            files = set()
            each = WRITERS_OF_A_GPU if workers.use_gpu else WRITERS
            made = write.write_dataset(masks, folder, todo, min(len(todo), each * workers.count))
            for row in made.iter_rows():
                files.add(row["file"])
                bad += row["bad"]
                limits.count_bad(bad, row["example"])
                if row["problem"]:
                    limits.add_failure(row["problem"])
                meter.set(meter.done + row["rows"])
            if profile:
                stats = made.stats().encode()
                storage.write_atomic(storage.join(profile, "predict-data.txt"), stats, replace=True)
            return files

        poison.run_with_isolation(
            tasks,
            make,
            LOST_BLOCKS + LOST_A_REPLICA * workers.count,
            lambda names: poison.find_crashing(
                names,
                functools.partial(predict_one, options=options, model=model, workers=workers),
                workers.cpus,
                int(workers.use_gpu),
            ),
        )
    limits.raise_if_failed()
    return meter.rate
