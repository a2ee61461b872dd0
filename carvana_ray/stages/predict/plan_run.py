"""Plan of a prediction: which run it belongs to, and which shards that run still needs."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from carvana_ray import storage
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import ModelManifest, ModelRef
from carvana_ray.config import PredictFlags
from carvana_ray.data.catalog import Catalog, load_catalog
from carvana_ray.data.corrections import NO_CORRECTIONS, Corrections, load_corrections
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.runtime.torch_trace import PROFILE_DIR
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.engine import Engine, MaskMaps, ray_engine
from carvana_ray.stages.ingest.crash_isolation import find_crashing
from carvana_ray.stages.ingest.read_images import file_columns, read_crcs, read_images
from carvana_ray.stages.predict.mask_predictor import MaskPredictor, read_options
from carvana_ray.stages.ray_metrics import meter
from carvana_ray.submission import plan, shards
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.shards import PendingShards

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictInput:
    """What a prediction starts from."""

    manifest: ModelManifest
    catalog: Catalog  # of corrected images it has the version with the correction
    published: str  # state of the submission file before the images were listed
    corrections: Corrections = NO_CORRECTIONS


@dataclass(frozen=True)
class PredictRun:
    """A prediction: its input, its plan and the shards that are still to make."""

    flags: PredictFlags
    manifest: ModelManifest
    catalog: Catalog
    published: str  # see `PredictInput`
    workers: WorkerAllocation
    engine: Engine
    folder: str  # URI, named by a hash of everything that the masks depend on
    parts: list[PlanPart]
    pending: PendingShards
    corrections: Corrections = NO_CORRECTIONS

    @property
    def out(self) -> str:
        """URI of the results."""
        return storage.resolve(self.flags.out)

    @property
    def model(self) -> ModelRef:
        """The model whose masks the run has."""
        return ModelRef(resolve_model(self.flags.model_uri), self.manifest.sha256)

    @property
    def profile(self) -> str:
        """URI of the folder of profiles, or "" without --profile."""
        return storage.join(self.out, PROFILE_DIR) if self.flags.profile else ""

    @property
    def masks(self) -> MaskMaps:
        """The maps that read the images and predict their masks."""
        catalog, manifest, workers = self.catalog, self.manifest, self.workers
        masks = self.corrections.uris
        options = read_options(catalog.folder, manifest, catalog.size, workers, masks)
        return MaskMaps(
            partial(read_images, options=options),
            MaskPredictor,
            self.model,
            workers,
            manifest.downscale,
            catalog.entries,
            self.profile,
        )


def list_input(flags: PredictFlags, manifest: ModelManifest) -> PredictInput:
    """Return the input of a prediction with this model.

    Raises:
        InputError: the images or the corrections cannot be used.
        StorageUnavailableError: a corrected mask cannot be reached.
    """
    published = storage.state(storage.resolve(flags.submission_uri))  # before the listing
    cars_by = flags.cars_by or manifest.training.get("cars_by", "")
    catalog = load_catalog(flags.data, flags.limit, flags.partial, cars_by)
    corrections = load_corrections(flags.corrections, [image.name for image in catalog.entries])
    entries = list(map(corrections.mark, catalog.entries))
    catalog = dataclasses.replace(catalog, entries=entries)
    return PredictInput(manifest, catalog, published, corrections)


def plan_run(
    flags: PredictFlags,
    cluster: ClusterResources,
    given: PredictInput,
    engine: Engine | None = None,
) -> PredictRun:
    """Return the run of a model on a catalog, after comparing its plan with the shards on disk.

    Without an engine the maps run on the open Ray session.

    Raises:
        InputError: the workers do not fit the cluster, or with --merge-only, shards are missing.
    """
    manifest, catalog, published = given.manifest, given.catalog, given.published
    workers = allocate_workers(flags, cluster)
    out = storage.resolve(flags.out)
    settings = {"model": manifest.sha256, "downscale": manifest.downscale}
    if flags.decode != "cpu":  # "cpu" is left out, so that older runs keep their id
        settings["decode"] = flags.decode
    run_id = plan.run_id({**settings, "data": catalog.folder, "size": catalog.size})
    folder = storage.join(out, "predict", run_id)
    parts = _extend_plan(flags, folder, catalog, plan.max_shard_size(manifest.downscale))
    engine = engine or ray_engine()
    crcs = _expected_crcs(flags, catalog, engine)
    pending = shards.pending(folder, parts, catalog.entries, crcs)
    log.debug("planned: %d of %d shards to make", len(pending.tasks), pending.needed)
    for damage in pending.damaged:
        log.warning("replacing a damaged shard: %s", damage)
    if pending.tasks and flags.merge_only:
        raise InputError(
            f"--merge-only: missing shards: {len(pending.tasks)} of {pending.needed}, the first is "
            f"{storage.join(folder, pending.tasks[0].name)}; run without --merge-only"
        )
    run = PredictRun(
        flags,
        manifest,
        catalog,
        published,
        workers,
        engine,
        folder,
        parts,
        pending,
        given.corrections,
    )
    return run if flags.merge_only else _retry_crashed(run)


def _retry_crashed(run: PredictRun) -> PredictRun:
    """Return the run after another look at the images that crashed their process in earlier runs.

    Each is tried alone. The shards of those that no longer crash are pending.

    Raises:
        IncompleteError: see `find_crashing`.
    """
    suspects = [image for shard in run.pending.crashed for image in shard.crashed]
    if not suspects:
        return run
    log.info("trying %s again that crashed a process", count_of(len(suspects), "images"))
    crashing = find_crashing(suspects, run.engine.try_chain(run.masks))
    return dataclasses.replace(run, pending=run.pending.retry(crashing))


def _extend_plan(
    flags: PredictFlags, folder: str, catalog: Catalog, max_shard_size: int
) -> list[PlanPart]:
    """Return the parts of the plan, with a new part for images that are not planned yet."""
    parts = plan.load_plan(folder)
    while new := plan.plan_new(parts, catalog.entries, flags.shard_size, max_shard_size):
        if flags.merge_only:
            raise InputError(
                f"--merge-only: {count_of(len(new.images), 'images')} not planned yet; run "
                "without --merge-only"
            )
        storage.write_atomic(storage.join(folder, new.name), new.to_bytes())
        parts = plan.load_plan(folder)  # another driver may have been first, with other images
    return parts


def _expected_crcs(flags: PredictFlags, catalog: Catalog, engine: Engine) -> Mapping[str, int]:
    """Return the listed CRC-32 by image; with --verify also those of unlisted files as they are.

    Raises:
        IncompleteError: an image cannot be reached.
    """
    if not flags.verify:
        return catalog.crcs
    images = catalog.entries
    size = plan.shard_size(len(images))
    rows = [file_columns(images[start : start + size]) for start in range(0, len(images), size)]
    crcs: dict[str, int] = {}
    with meter("verify", len(images)) as progress:
        for batch in engine.map_files(rows, partial(read_crcs, folder=catalog.folder)):
            for name, problem in zip(batch["img"], batch["problem"], strict=True):
                if problem:
                    uri = storage.join(catalog.folder, name)
                    raise IncompleteError(f"--verify: {uri} cannot be read: {problem}; run again")
            crcs.update(zip(batch["img"].tolist(), batch["crc32"].tolist(), strict=True))
            progress.set(len(crcs))
    return {**crcs, **catalog.crcs}
