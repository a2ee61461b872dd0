"""Cut out the cars of images: one file per image, with a transparent or another background.

check -> plan_run (from the index) -> measure_scales -> render_pending (the chain) -> publish

After a crash the same command makes the cut-outs that are missing, see `cutouts.index.sync`.
"""

import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any

from carvana_ray import storage
from carvana_ray.checkpoints.model import (
    describe_model,
)
from carvana_ray.config import CutoutFlags
from carvana_ray.cutouts import index
from carvana_ray.data.corrections import correction_of
from carvana_ray.data.quarantine import Bad, FailureLimits
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.preflight import announce, describe_workers
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.cutout.chains import CutoutJob, writing
from carvana_ray.stages.cutout.plan_run import CutoutInput, CutoutRun, check, plan_run
from carvana_ray.stages.cutout.publish import publish
from carvana_ray.stages.cutout.scales import NO_SCALES, Scales, measure_scales
from carvana_ray.stages.cutout.tally import CutoutTally, rows_of
from carvana_ray.stages.cutout.write_cutouts import CutoutWriter
from carvana_ray.stages.engine import Engine, ray_engine
from carvana_ray.stages.ingest.blocks import Columns


def run(
    flags: CutoutFlags,
    cluster: ClusterResources,
    checked: CutoutInput | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Make the cut-outs that do not exist yet, and return the job's result.

    Args:
        flags: of the job.
        cluster: where to run.
        checked: the result of `check`, if the caller has it.
        engine: calls the maps; None for the open Ray session.

    Raises:
        BadImagesError: some images are bad; all others are cut out.
        InputError: too many images are bad.
        IncompleteError: some images could not be reached, or some cut-outs could not be written.
    """
    began = time.monotonic()
    job = plan_run(flags, cluster, checked or check(flags))
    announce_run(job)
    job.checked.images.log_skipped()
    job.checked.corrections.log(flags.corrections)
    engine = engine or ray_engine()
    with job.model.blamed() if job.model else contextlib.nullcontext():
        tally, rate = render_pending(job, engine, measure_scales(job, engine))
    result = {
        "images": len(job.checked.entries),
        "written": tally.written,
        "resumed": job.done,
        "bad": len(tally.bad),
        **_count_corrected(job, tally.bad),
        "skipped": dict(job.checked.images.skipped),
        "images_per_second": round(rate, 1),
        "seconds": round(time.monotonic() - began, 1),
        "cutouts": job.target,
    }
    publish(job, tally.bad, result, engine)
    return result


def _count_corrected(run: CutoutRun, bad: Sequence[Bad]) -> dict[str, int]:
    """Return ``corrected``, the number of cut-outs of corrected masks; {} without --corrections."""
    if not run.flags.corrections:
        return {}
    corrected = {image.name for image in run.checked.entries if correction_of(image)}
    return {"corrected": len(corrected - {name for name, _, _ in bad})}


def announce_run(run: CutoutRun) -> None:
    """Log in one line what will be cut out."""
    images, manifest = count_of(len(run.checked.entries), "images", run.done), run.checked.manifest
    if manifest:
        summary = f"{images}; {describe_model(manifest)}"
        announce("cutout", summary, run.target, describe_workers(run.workers))
    else:
        announce("cutout", f"{images}; masks of a submission", run.target)


def render_pending(
    run: CutoutRun, engine: Engine, scales: Scales = NO_SCALES
) -> tuple[CutoutTally, float]:
    """Cut out the pending images; return their tally and the steady rate in images per second."""
    checked = run.checked
    limits = FailureLimits(checked.folder, len(run.pending), "cut-out")
    manifest = checked.manifest
    tally = CutoutTally(limits, (manifest.height, manifest.width) if manifest else None)
    if not run.pending:
        return tally, 0.0
    left_out = {name for name, _, _ in scales.left_out}
    entries = [entry for entry in run.pending if entry.name not in left_out]
    with ray_metrics.meter("cut out", len(checked.entries), run.done) as meter:

        def on_results(batch: Columns) -> None:
            tally.add(rows_of(batch))
            tally.count_sizes(batch["pixels"][batch["pixels"] > 0].tolist())
            meter.set(meter.done + len(batch["img"]))

        work = writing(
            CutoutWriter(checked.folder, run.target, checked.style), run.sources, scales.extents
        )
        if left_out:
            tally.add(scales.left_out)
        if entries:
            mixed = random.sample(entries, len(entries))
            run.feed(CutoutJob(mixed, checked.crcs, work, engine, on_results))
        limits.raise_if_failed()
    if tally.scales:
        tally.scales.log()
    require_all(run, tally.bad)
    return tally, meter.rate


def require_all(run: CutoutRun, bad: Sequence[Bad]) -> None:
    """Raise `IncompleteError` if a cut-out that was made is not there any more."""
    suffix = run.checked.style.suffix
    wanted = index.by_output_name(run.sources.values(), suffix)
    without = {run.sources[name].cutout(suffix) for name, _, _ in bad}
    missing = set(index.missing(run.target, wanted, suffix)) - without
    if missing:
        raise IncompleteError(
            f"{storage.join(run.target, min(missing))}: removed or made again meanwhile by another "
            f"command, in all {count_of(len(missing), 'cut-outs')}; run again"
        )
