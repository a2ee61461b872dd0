"""The input of a cut-out job, and the images that are still to be cut out."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import storage
from carvana_ray.checkpoints.manifest import cutout_model
from carvana_ray.checkpoints.model import (
    ModelManifest,
    ModelRef,
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
from carvana_ray.data.corrections import NO_CORRECTIONS, Corrections
from carvana_ray.data.csv_reader import digests
from carvana_ray.images.validate import MAX_BYTES
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.stages.cutout.chains import CutoutJob
from carvana_ray.stages.cutout.sources import (
    all_views,
    car_names,
    cars_by,
    find_corrections,
    list_sources,
)
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

    @property
    def model(self) -> ModelRef | None:
        """The model; None if the masks come from a submission."""
        checked = self.checked
        return ModelRef(checked.model, checked.manifest.sha256) if checked.manifest else None

    def feed(self, job: CutoutJob) -> None:
        """Run a chain on the masks of this run: the model's, or those of the submission."""
        checked = self.checked
        if checked.manifest and self.model:
            masks = checked.corrections.uris
            options = read_options(checked.folder, checked.manifest, None, self.workers, masks)
            job.run_model(options, self.model, self.workers)
        else:
            uri = storage.resolve(self.flags.submission)
            job.run_submission(uri, checked.rows, max(1, self.cpus - 1))

    @property
    def done(self) -> int:
        """Number of images that an earlier run has cut out."""
        return len(self.checked.entries) - len(self.pending)


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
