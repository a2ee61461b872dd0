"""Cut out the cars of images: one file per image, with a transparent or another background.

check -> plan_run (from the index) -> measure_scales -> render_pending (the chain) -> publish

After a crash the same command makes the cut-outs that are missing, see `cutouts.index.sync`.
"""

import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.checkpoints.manifest import cutout_model
from carvana_ray.checkpoints.model import (
    ModelManifest,
    ModelRef,
    describe_model,
    load_model,
    sha256,
)
from carvana_ray.config import CutoutFlags
from carvana_ray.cutouts import index
from carvana_ray.cutouts.compositing import TRANSPARENT, CutoutStyle, parse_background, version
from carvana_ray.cutouts.framing import CATALOGUE_SIZE, Frame
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data.cars import CarNames
from carvana_ray.data.checksums import load_checksums
from carvana_ray.data.collect import CollectedImages
from carvana_ray.data.corrections import NO_CORRECTIONS, Corrections, correction_of
from carvana_ray.data.csv_reader import digests
from carvana_ray.data.quarantine import Bad, FailureLimits
from carvana_ray.errors import IncompleteError
from carvana_ray.images.validate import MAX_BYTES
from carvana_ray.runtime.preflight import announce, describe_workers
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.cutout.chains import CutoutJob, writing
from carvana_ray.stages.cutout.publish import publish
from carvana_ray.stages.cutout.scales import NO_SCALES, Scales, measure_scales
from carvana_ray.stages.cutout.sources import (
    all_views,
    car_names,
    cars_by,
    find_corrections,
    list_sources,
)
from carvana_ray.stages.cutout.tally import CutoutTally, rows_of
from carvana_ray.stages.cutout.write_cutouts import CutoutWriter
from carvana_ray.stages.engine import Engine, ray_engine
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.predict.mask_predictor import read_options
from carvana_ray.storage import FileInfo

FOLDER = "cutouts"


@dataclass(frozen=True)
class CutoutInput:
    """Input of a cut-out job.

    Attributes:
        images: the images and where their cut-outs belong. Of corrected images they have the
            version with the correction.
        rows: with a submission, a hash of each image's row, by image name; otherwise empty.
        crcs: expected CRC-32 by image name, where known.
        style: how the cut-outs look.
        settings: see `CutoutIndex`.
        manifest: of the model; None if the masks come from a submission.
        model: the model's folder, see `resolve_model`.
        cars: gives the car of an image; None if views of a car need no scale in common.
        views: with `cars`, all images of the cars of `images`: with --limit there are more.
        corrections: masks that a person has corrected, of all these images.
    """

    images: CollectedImages
    rows: dict[str, str]
    crcs: dict[str, int]
    style: CutoutStyle
    settings: dict[str, Any]
    manifest: ModelManifest | None
    model: str = ""
    cars: CarNames | None = None
    views: Sequence[FileInfo] = ()
    corrections: Corrections = NO_CORRECTIONS

    @property
    def folder(self) -> str:
        """URI of the folder above all images."""
        return self.images.folder

    @property
    def entries(self) -> list[FileInfo]:
        """The images, named relative to `folder`."""
        return self.images.entries


def check(flags: CutoutFlags) -> CutoutInput:
    """Return the input of the job.

    Raises:
        InputError: model, submission, background, corrections or images are missing or invalid, or
            --out cannot be written.
    """
    background = parse_background(
        flags.background, lambda uri: storage.read(storage.resolve(uri), MAX_BYTES)
    )
    look = flags.soft, background, flags.format, flags.mask_only
    style = CutoutStyle(*look, frame_of(flags), flags.shadow)
    found = list_sources(flags)
    crcs = load_checksums(storage.resolve(flags.data)) if flags.data else {}
    entries = found.entries[: flags.limit or None]
    model, manifest, rows = "", None, dict[str, str]()
    if not flags.submission:
        model = cutout_model(flags.model, flags.out)
        _, manifest = load_model(model)
    pattern = cars_by(flags, manifest.training if manifest else {})
    cars = car_names(flags, pattern, found) if flags.frame == "catalogue" else None
    submission = storage.resolve(flags.submission) if flags.submission else ""
    views = all_views(cars, found, entries, submission)
    if submission:
        rows = digests(submission, [view.name for view in views])
    storage.require_writable(storage.resolve(flags.out))
    settings = _settings(flags, style, manifest)
    if cars:
        settings["cars_by"] = pattern or "file names"
    corrections = find_corrections(flags.corrections, found, [*entries, *views])
    entries, views = ([corrections.mark(image) for image in some] for some in (entries, views))
    images = dataclasses.replace(found, entries=entries)
    return CutoutInput(
        images, rows, crcs, style, settings, manifest, model, cars, views, corrections
    )


def frame_of(flags: CutoutFlags) -> Frame | None:
    """Return the frame that flags name; None for images as photographed.

    Raises:
        InputError: --margin leaves no room for the car.
    """
    if flags.frame == "none":
        return None
    size = flags.frame_size or (CATALOGUE_SIZE if flags.frame == "catalogue" else None)
    return Frame(flags.frame, size, flags.margin)


def _settings(
    flags: CutoutFlags, style: CutoutStyle, manifest: ModelManifest | None
) -> dict[str, Any]:
    """Return the settings for the index. Changed values would orphan existing cut-outs."""
    background: Any = style.background or TRANSPARENT
    if isinstance(background, bytes):
        background = f"picture of SHA-256 {sha256(background)}"
    return {
        "model": manifest.sha256 if manifest else "none, rows of a submission",
        "edge": "soft" if style.soft else "hard",
        "background": list(background) if isinstance(background, tuple) else background,
        "format": style.format,
        "mask_only": style.mask_only,
        "downscale": manifest.downscale if manifest else None,
        "version": version(style),
        **({"decode": flags.decode} if manifest and flags.decode != "cpu" else {}),
        **(_frame_settings(style.frame) if style.frame else {}),
        **({"shadow": style.shadow} if style.shadow != "none" else {}),
    }


def _frame_settings(frame: Frame) -> dict[str, Any]:
    size = "x".join(map(str, frame.size)) if frame.size else "that of the car"
    return {"frame": frame.kind, "size": size, "margin": frame.margin}


@dataclass(frozen=True)
class CutoutRun:
    """A cut-out job and the images that are still to be cut out.

    Attributes:
        cpus: of the cluster.
        target: URI of the folder of cut-outs.
        sources: all images by name, as the index lists them.
        pending: the images without a current cut-out.
        listed: tags of the images that the index had before, by name of the cut-out.
    """

    flags: CutoutFlags
    checked: CutoutInput
    workers: WorkerAllocation
    cpus: int
    target: str
    sources: dict[str, SourceImage]
    pending: list[FileInfo]
    listed: Mapping[str, str]

    def is_new(self, image: FileInfo) -> bool:
        """Return whether no earlier command knew an image in its present version."""
        source = self.sources[image.name]
        return self.listed.get(source.cutout(self.checked.style.suffix)) != source.tag

    def feed(self, job: CutoutJob) -> None:
        """Run a chain on the masks of this run: the model's, or those of the submission."""
        checked = self.checked
        if checked.manifest:
            masks = checked.corrections.uris
            options = read_options(checked.folder, checked.manifest, None, self.workers, masks)
            model = ModelRef(checked.model, checked.manifest.sha256)
            with model.blamed():
                job.run_model(options, model, self.workers)
        else:
            uri = storage.resolve(self.flags.submission)
            job.run_submission(uri, checked.rows, max(1, self.cpus - 1))

    @property
    def done(self) -> int:
        """Number of images that an earlier run has cut out."""
        return len(self.checked.entries) - len(self.pending)


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


def plan_run(flags: CutoutFlags, cluster: ClusterResources, checked: CutoutInput) -> CutoutRun:
    """Update the index of the folder of cut-outs, and find the images to cut out.

    Raises:
        InputError: the folder has cut-outs of other settings or of other images.
    """
    workers = allocate_workers(flags, cluster)
    target = storage.join(storage.resolve(flags.out), FOLDER)
    sources, suffix = source_images(checked), checked.style.suffix
    wanted = index.by_output_name(sources.values(), suffix)
    listed = index.tags(target)
    names = set(index.sync(target, checked.settings, wanted, suffix))
    pending = [e for e in checked.entries if sources[e.name].cutout(suffix) in names]
    return CutoutRun(flags, checked, workers, cluster.cpus, target, sources, pending, listed)


def source_images(checked: CutoutInput) -> dict[str, SourceImage]:
    """Return the images for the index. A cut-out depends on its row of a submission too."""
    sources = {}
    for image in checked.entries:
        uri = storage.join(checked.folder, image.name)
        row = checked.rows.get(image.name, "")
        version = f"{image.version} {row}" if row else image.version
        entry = FileInfo(storage.name(uri), image.size, version)
        output = checked.images.outputs[image.name]
        sources[image.name] = SourceImage(storage.parent(uri), entry, output)
    return sources


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
