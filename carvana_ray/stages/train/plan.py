"""The plan of a training job: its input, its folders, and what is already done."""

import dataclasses
import logging
from dataclasses import dataclass

from carvana_ray import config, images, storage
from carvana_ray.checkpoints import train_state
from carvana_ray.checkpoints.manifest import MANIFEST
from carvana_ray.checkpoints.model import load_model
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.data import quarantine
from carvana_ray.data.pairs import UnpairedError
from carvana_ray.errors import InputError, StorageAccessError
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.training import finetune, pretrained, tensorboard
from carvana_ray.training.run import TrainingRun, plan_run
from carvana_ray.training.state import unet_config
from carvana_ray.unet.network import UNetConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A planned training job, as the driver and each worker know it.

    Attributes:
        flags: as returned by `finetune.resolve_flags`.
        out: folder of all results, resolved.
    """

    flags: config.TrainFlags
    run: TrainingRun
    cluster: ClusterResources
    workers: WorkerAllocation
    out: str

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.flags.recipe]

    @property
    def network(self) -> UNetConfig:
        return unet_config(self.flags.base, self.recipe, self.flags.encoder)

    @property
    def grid(self) -> tuple[int, int]:
        """The (h, w) of an image on the network's grid."""
        return images.grid_size(*self.run.size, self.flags.downscale)

    @property
    def model_dir(self) -> str:
        return storage.join(self.out, "model")

    @property
    def checkpoint_dir(self) -> str:
        return _checkpoint_dir(self.out, self.run)

    @property
    def tensorboard_dir(self) -> str:
        return storage.join(self.out, tensorboard.FOLDER, self.run.run_id)


def check_run(flags: config.TrainFlags) -> TrainingRun:
    """Return the planned run.

    Raises:
        InputError: listing the input shows that it cannot be trained on.
    """
    if flags.tensorboard:
        tensorboard.require_writer()
    base_model = finetune.load_base_manifest(flags)
    flags = finetune.resolve_flags(flags, base_model)
    if flags.encoder != "none" and not base_model:
        pretrained.require_published()
    out = storage.resolve(flags.out)
    try:
        run = plan_run(flags, flags.workers or 1, base_model)
    except UnpairedError as error:
        uri = quarantine.write_faults(out, error.faults)
        raise InputError(f"{error}; the full list is in {uri}") from error
    storage.require_writable(out)
    resumes = bool(train_state.list_epochs(_checkpoint_dir(out, run)))
    if base_model and not resumes and not is_finished(storage.join(out, "model"), run):
        finetune.load_base_weights(flags, base_model.sha256)  # fail now if they are damaged
    return run


def plan_job(flags: config.TrainFlags, cluster: ClusterResources, run: TrainingRun) -> TrainJob:
    """Return the job for a planned run on a cluster."""
    workers = allocate_workers(flags, cluster)
    plan = dataclasses.replace(run.plan, workers=workers.count)
    return TrainJob(
        flags=finetune.resolve_flags(flags, run.base_model),
        run=dataclasses.replace(run, plan=plan),
        cluster=cluster,
        workers=workers,
        out=storage.resolve(flags.out),
    )


def _checkpoint_dir(out: str, run: TrainingRun) -> str:
    return storage.join(out, "checkpoints", run.run_id)


def is_finished(model_dir: str, run: TrainingRun) -> bool:
    """Return whether the folder holds the model of this run."""
    if not storage.exists(storage.join(model_dir, MANIFEST)):
        return False
    try:
        _, manifest = load_model(model_dir)
    except StorageAccessError:
        raise
    except InputError as error:  # such as a run killed between the weights and the manifest
        log.warning("%s: training it again", error)
        return False
    return manifest.run == run.run_id
