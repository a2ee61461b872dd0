"""Ray Train around `loop`: where its workers are, what they are told, how it ended."""

import os
import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from carvana_ray import config, images, storage
from carvana_ray.checkpoints import train_state as states
from carvana_ray.config.recipes import RECIPES
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation
from carvana_ray.runtime.torch_trace import PROFILE_DIR
from carvana_ray.stages.train import assemble_batches as take
from carvana_ray.stages.train import dataset as feed
from carvana_ray.stages.train.worker import train_loop_per_worker
from carvana_ray.training import loop as training
from carvana_ray.training import run as courses
from carvana_ray.training import state as learner
from carvana_ray.training import tensorboard as events
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.run import TrainingRun

# Ray Train asks its workers how they are this often, and takes one report of each then. Every 2 s,
# as it does by itself, an epoch of a second would wait for that, and the end of training twice.
POLL_S = 0.25
FAILURES = 3  # of workers, each from the last epoch on, and of Ray Train's own controller


class StreamDataConfig(DataConfig):
    """Makes the stream of batches when Ray has started the workers, and deals it out to them.

    Only then it is known how many there are (`--min-workers`), and, after a failure, with which
    epoch they go on.
    """

    def __init__(
        self,
        flags: config.TrainFlags,
        plan: BatchPlan,
        board: Any,
        kept: NDArray[np.int64],
        folder: str,
        grid: tuple[int, int],
        room: int,
        on_gpu: bool,
    ) -> None:
        options = ray.data.ExecutionOptions()
        options.preserve_order = True
        options.resource_limits = ray.data.ExecutionResources.for_limits(object_store_memory=room)
        super().__init__(enable_shard_locality=False, execution_options=options)
        self._flags, self._plan, self._folder = flags, plan, folder
        self._board, self._kept, self._on_gpu = board, kept, on_gpu
        self._grid = grid

    def __deepcopy__(self, _memo: Any) -> "StreamDataConfig":
        """Return itself: Ray Train copies it, and references to objects must not be."""
        return self

    def configure(
        self,
        datasets: dict[str, ray.data.Dataset],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **others: Any,
    ) -> list[dict[str, ray.data.DataIterator]]:
        """Return the iterators of each worker; what stands in for the data set is not read."""
        recipe = RECIPES[self._flags.recipe]
        saved, _ = states.load_latest(self._folder, learner.unet_config(self._flags.base, recipe))
        plan = courses.with_workers(self._plan, world_size)
        stream = feed.batch_stream(
            plan,
            self._board,
            self._kept,
            recipe.flip,
            recipe.affine_augment,
            first_epoch=saved["epoch"] if saved else 0,
            steps=take.steps_per_block(plan.per_worker, self._grid),
            elastic=bool(self._flags.min_workers),
            on_gpu=self._on_gpu,
        )
        streams = dict.fromkeys(datasets, stream)
        return super().configure(streams, world_size, worker_handles, worker_node_ids, **others)


@dataclass(frozen=True)
class Fitting:
    """What Ray Train needs to train.

    Attributes:
        flags, course, cluster, workers: what, where, and by whom.
        folder: of the run's states.
        board: has the decoded pictures, or will have them; see `watch`.
        scratch: a folder for Ray Train.
    """

    flags: config.TrainFlags
    course: TrainingRun
    cluster: ClusterResources
    workers: WorkerAllocation
    folder: str
    board: Any
    scratch: str

    def begin(self, plan: BatchPlan, kept: NDArray[np.int64]) -> "Future[object]":
        """Start Ray Train; what it makes of it is the result, see `outcome`.

        Args:
            plan: of the batches.
            kept: int64, from its pictures to those of the board.
        """
        flags, course, out = self.flags, self.course, storage.resolve(self.flags.out)
        grid = images.grid_size(*course.size, flags.downscale)
        room, on_gpu = _room(course, grid), self.workers.use_gpu
        deal = StreamDataConfig(flags, plan, self.board, kept, self.folder, grid, room, on_gpu)
        settings = {
            "flags": flags,
            "plan": plan,
            "folder": self.folder,
            "board": self.board,
            "init": course.init.sha256 if course.init else "",
            "threads": self.workers.cpus,
            "grid": grid,
            "events": events.folder_of(out, course.run) if flags.tensorboard else "",
            "profile": storage.join(out, PROFILE_DIR) if flags.profile else "",
        }
        _set_ray_env(self.cluster)
        return run_in_background(_trainer(flags, self.workers, settings, deal, self.scratch).fit)


def wait_for_training(fitting: "Future[object]") -> None:
    """Wait for Ray Train, which runs beside the main thread: in it, it would take over Ctrl-C.

    Raises:
        Diverged: the training did.
    """
    try:
        fitting.result()
    except Exception as error:
        for failure in getattr(error, "worker_failures", {}).values():
            if found := re.search(rf"{training.DivergedError.__name__}: (.*)", str(failure)):
                raise training.DivergedError(found[1]) from error
        raise


def _set_ray_env(cluster: ClusterResources) -> None:
    """Tell Ray Train's controller, which gets these of the driver, how to go about its work."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    if cluster.nodes == 1 and not cluster.autoscaler_max:
        # An actor, 3 s of a core, that waits for word of machines about to be taken away.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def _trainer(
    flags: config.TrainFlags,
    workers: WorkerAllocation,
    settings: dict[str, Any],
    deal: StreamDataConfig,
    scratch: str,
) -> TorchTrainer:
    fewest = flags.min_workers or workers.count
    # Ray's types are those of the older Train: a pair for elastic workers is not among them.
    count: Any = (fewest, workers.count) if fewest < workers.count else workers.count
    failures: dict[str, Any] = {"max_failures": FAILURES, "controller_failure_limit": FAILURES}
    return TorchTrainer(
        train_loop_per_worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=count,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
        ),
        run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(**failures)),
        datasets={"batches": ray.data.range(1)},  # see `Deal`
        dataset_config=deal,
    )


def _room(course: TrainingRun, grid: tuple[int, int]) -> int:
    """Return the bytes of the object stores that batches may take beside the decoded pictures."""
    h, w = grid
    store = int(ray.cluster_resources().get("object_store_memory", 0))
    return feed.store_budget(store, cached=2 * h * w * len(course.pairs))
