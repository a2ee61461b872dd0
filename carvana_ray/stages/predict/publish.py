"""The results of a prediction for people: quarantine.csv, review, report and contact sheets."""

import logging
from concurrent.futures import Future
from functools import partial
from typing import Any

from carvana_ray import storage
from carvana_ray.data.corrections import correction_of
from carvana_ray.errors import BadImagesError
from carvana_ray.report import figures
from carvana_ray.report.builder import PAGE, add_section
from carvana_ray.report.overlays import Figure
from carvana_ray.report.provenance import provenance
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.progress import StageTimer
from carvana_ray.stages.predict.mask_predictor import log_scaled
from carvana_ray.stages.predict.plan_run import PredictRun
from carvana_ray.stages.predict.review_masks import review_masks
from carvana_ray.stages.predict.soft_masks import predict_soft_masks
from carvana_ray.submission import merge
from carvana_ray.submission.merge import MergeSummary

log = logging.getLogger(__name__)


Review = tuple[dict[str, Any], dict[str, int]]  # result of `review_masks`


def start_review(run: PredictRun, merging: Future[MergeSummary]) -> Future[Review]:
    """Start the review of the masks while they are merged; it writes after the merge."""

    def is_current() -> bool:
        return merge.is_current(run.flags, merging.result())

    def review() -> Review:
        return review_masks(run.out, run.folder, run.parts, run.catalog, run.engine, is_current)

    return run_in_background(review)


def publish(
    run: PredictRun,
    merged: MergeSummary,
    reviewing: Future[Review],
    result: dict[str, Any],
    timer: StageTimer,
) -> None:
    """Write quarantine.csv, the section of the report and the contact sheets.

    `result` gets ``unusual``, the number of masks to check first, and ``report``, the page.
    Review, report and sheets of a newer submission stay.

    Raises:
        BadImagesError: there is no submission; review and report are written all the same.
    """
    held_back, target = None, result["submission"]
    log_scaled(run.manifest, merged.pixel_counts.values())
    try:
        merge.finish_run(run.flags, merged, run.folder, result)
    except BadImagesError as error:
        held_back, result = error, error.result
    current = partial(merge.is_current, run.flags, merged)
    review, crcs = reviewing.result()
    timer.end("look at the masks once more")
    result |= {"unusual": review["listed"], "report": storage.join(run.out, PAGE)}
    if current():
        write_report(run, merged, {"result": result, "review": review}, crcs, timer.seconds)
    else:
        log.info("another run has published %s meanwhile; its review and report stay", target)
    if held_back:
        raise held_back


def write_report(
    run: PredictRun,
    merged: MergeSummary,
    results: dict[str, dict[str, Any]],
    crcs: dict[str, int],
    seconds: dict[str, float],
) -> None:
    """Write the section of the report and, if there is a submission, the contact sheets.

    Args:
        run, merged: the prediction and its merge.
        results: ``result`` of the job and ``review`` of the masks.
        crcs: CRC-32 by image.
        seconds: of each step.
    """
    rate, folder = results["result"]["images_per_second"], run.catalog.folder
    section = {
        **provenance(run.flags, run.manifest, folder, crcs),
        **results,
        "bad": [[row["img"], row["status"]] for row in merged.bad],
        "shown": _show_cutouts(run, figures.pick_rows(merged.sheet_rows)),
        "seconds": seconds,
        "speed": {"Prediction: pictures a second": rate} if rate else {},
    }
    add_section(run.out, "predict", section)
    if results["result"]["submission"]:
        for name, image in figures.car_sheets(folder, merged.sheet_rows).items():
            storage.write_atomic(storage.join(run.out, "sheets", name), image, replace=True)


def _show_cutouts(run: PredictRun, rows: list[dict[str, Any]]) -> list[Figure]:
    """Return the figures of some images as `cutout` would write them."""
    names, folder = {row["img"] for row in rows}, run.catalog.folder
    listed = [entry for entry in run.catalog.entries if entry.name in names]
    entries = [entry for entry in listed if not correction_of(entry)]
    soft_masks = predict_soft_masks(folder, entries, run.model, run.manifest)
    return figures.cutout_figures(folder, rows, soft_masks)
