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
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from carvana_ray import config, events, images, storage, training
from carvana_ray.batches import BatchPlan
from carvana_ray.course import Course
from carvana_ray.profiling import FOLDER
from carvana_ray.resources import Cluster, Workers
from carvana_ray.stages import feed
from carvana_ray.stages.beside import beside
from carvana_ray.stages.deal import Deal
from carvana_ray.stages.loop import loop

# Ray Train asks its workers how they are this often, and takes one report of each then. Every 2 s,
# as it does by itself, an epoch of a second would wait for that, and the end of training twice.
POLL_S = 0.25
FAILURES = 3  # of workers, each from the last epoch on, and of Ray Train's own controller


@dataclass(frozen=True)
class Fitting:
    """What Ray Train needs to train.

    Attributes:
        flags, course, cluster, workers: what, where, and by whom.
        folder: of the run's states.
        board: has the decoded pictures, or will have them; see `watch`.
        scratch: a folder for Ray Train.
    """

    flags: config.Train
    course: Course
    cluster: Cluster
    workers: Workers
    folder: str
    board: Any
    scratch: str

    def begin(self, plan: BatchPlan, kept: NDArray[np.int64]) -> "Future[object]":
        """Start Ray Train; what it makes of it is the result, see `outcome`.

        Args:
            plan: of the batches.
            kept: int64, from its pictures to those of the board.
        """
        flags, course, out = self.flags, self.course, storage.absolute(self.flags.out)
        grid = images.grid(*course.size, flags.downscale)
        room, on_gpu = _room(course, grid), self.workers.use_gpu
        deal = Deal(flags, plan, self.board, kept, self.folder, grid, room, on_gpu)
        settings = {
            "flags": flags,
            "plan": plan,
            "folder": self.folder,
            "board": self.board,
            "init": course.init.sha256 if course.init else "",
            "threads": self.workers.cpus,
            "grid": grid,
            "events": events.folder_of(out, course.run) if flags.tensorboard else "",
            "profile": storage.join(out, FOLDER) if flags.profile else "",
        }
        _settle(self.cluster)
        return beside(_trainer(flags, self.workers, settings, deal, self.scratch).fit)


def outcome(fitting: "Future[object]") -> None:
    """Wait for Ray Train, which runs beside the main thread: in it, it would take over Ctrl-C.

    Raises:
        Diverged: the training did.
    """
    try:
        fitting.result()
    except Exception as error:
        for failure in getattr(error, "worker_failures", {}).values():
            if found := re.search(rf"{training.Diverged.__name__}: (.*)", str(failure)):
                raise training.Diverged(found[1]) from error
        raise


def _settle(cluster: Cluster) -> None:
    """Tell Ray Train's controller, which gets these of the driver, how to go about its work."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    if cluster.nodes == 1 and not cluster.may_have:
        # An actor, 3 s of a core, that waits for word of machines about to be taken away.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def _trainer(
    flags: config.Train, workers: Workers, settings: dict[str, Any], deal: Deal, scratch: str
) -> TorchTrainer:
    fewest = flags.min_workers or workers.count
    # Ray's types are those of the older Train: a pair for elastic workers is not among them.
    count: Any = (fewest, workers.count) if fewest < workers.count else workers.count
    failures: dict[str, Any] = {"max_failures": FAILURES, "controller_failure_limit": FAILURES}
    return TorchTrainer(
        loop,
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


def _room(course: Course, grid: tuple[int, int]) -> int:
    """Return the bytes of the object stores that batches may take beside the decoded pictures."""
    h, w = grid
    store = int(ray.cluster_resources().get("object_store_memory", 0))
    return feed.room(store, cached=2 * h * w * len(course.pairs))
