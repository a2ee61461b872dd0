"""The trained network as a Ray Data actor, and the resources of the maps around it."""

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

import ray.data
import torch

from carvana_ray.checkpoints.model import ModelRef
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.engine import MaskMaps
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.datasets import RETRIES
from carvana_ray.stages.ingest.read_images import (
    MAX_ENCODED_BYTES,
    block_row,
)
from carvana_ray.stages.predict.mask_predictor import (
    BATCH_DECODED,
    BATCH_ON_CPU,
    BATCH_ON_GPU,
    MaskPredictor,
)
from carvana_ray.stages.ray_metrics import WaitTimer
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import max_shard_size

log = logging.getLogger(__name__)

# Retries of a block whose replica died. A retry takes ten seconds or more, and a block that is
# lost by chance is repeated in the next pass of `run_with_isolation`.
TASK_RETRIES = 2
# Restarts of one replica. Each of `LOST_BLOCKS` crashing images takes 1 + TASK_RETRIES, 48 in all;
# the rest is for machines that come and go. If no replica is left, Ray Data waits half an hour
# before it ends the run.
RESTARTS = 100
REPLICAS_A_GPU = 2  # one computes while the other takes in or hands out a batch
# Calls at a time of the one replica of a GPU that decodes: one has the engines, one the network,
# one takes in or hands out a batch. Kernels of two processes would never run at the same time.
CALLS_THAT_DECODE = 3
READERS = 2  # for each replica on CPUs
CPUS_OF_A_READER = 0.8  # next to a GPU: each reader waits for Ray between two blocks
READERS_OF_FILES = 6  # for each GPU that decodes: 0.3 ms of a core an image, 4,000 images/s


class Replica:
    """A `MaskPredictor` in a process of its own.

    Args:
        kind: of the predictor.
        model, workers, profile: see `MaskPredictor`.
    """

    def __init__(
        self,
        kind: type[MaskPredictor],
        model: ModelRef,
        workers: WorkerAllocation,
        profile: str = "",
    ) -> None:
        self._predict = kind(model, workers, profile)
        self._waits = WaitTimer("predict")

    def __call__(self, batch: Columns) -> Columns:
        """Return the result of the predictor. A GPU fault ends the process."""
        with self._waits:
            try:
                return self._predict(batch)
            except torch.AcceleratorError:  # CUDA no longer works in this process
                log.exception("GPU fault; Ray starts another process")
                os._exit(1)


def cpu_map_resources(workers: WorkerAllocation) -> dict[str, Any]:
    """Return the resources of a map that runs on CPUs next to the replicas.

    After a machine is lost, replicas on CPUs may take all the CPUs that are left, and a task that
    needs one would wait forever. So tasks next to them request no CPU, and their number is bounded
    instead.
    """
    if workers.use_gpu:
        return {"num_cpus": CPUS_OF_A_READER}
    return {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(READERS * workers.count)}


def reader_resources(workers: WorkerAllocation, images: Sequence[FileInfo]) -> dict[str, Any]:
    """Return the arguments of `map_batches` for `read_images`, which reads these images.

    Retries are bounded: with Ray Data's default, a block with a crashing image is tried forever.
    """
    resources = cpu_map_resources(workers)
    decoded_here = sum(image.size > MAX_ENCODED_BYTES for image in images)
    # More readers than those of files would only take time to start.
    if workers.decode_on_gpu and 2 * decoded_here <= len(images):
        resources["compute"] = ray.data.TaskPoolStrategy(READERS_OF_FILES * workers.count)
    return {"batch_size": None, "max_retries": RETRIES, **resources}


def replica_resources(workers: WorkerAllocation, downscale: int) -> dict[str, Any]:
    """Return the arguments of `map_batches` for `MaskPredictor`, for a model of this downscale."""
    batch_size, replicas, calls = BATCH_ON_CPU, 1, 1
    if workers.decode_on_gpu:
        batch_size, calls = min(BATCH_DECODED, max_shard_size(downscale)), CALLS_THAT_DECODE
    elif workers.use_gpu:
        batch_size, replicas = min(BATCH_ON_GPU, max_shard_size(downscale)), REPLICAS_A_GPU
    return {
        "batch_size": batch_size,
        "compute": ray.data.ActorPoolStrategy(
            size=workers.count * replicas,
            max_tasks_in_flight_per_actor=calls + 1,  # `LOST_A_REPLICA` in all
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=calls > 1,
        ),
        "num_gpus": 1 / replicas if workers.use_gpu else None,
        # Without 0, Ray reserves a CPU for each replica on a GPU: none would be left for readers.
        "num_cpus": 0 if workers.use_gpu else workers.cpus,
        "max_restarts": RESTARTS,
        "max_task_retries": TASK_RETRIES,
    }


@functools.lru_cache(maxsize=1)
def _loaded(kind: type[MaskPredictor], model: ModelRef, workers: WorkerAllocation) -> Replica:
    return Replica(kind, model, workers)


def predict_one(image: FileInfo, masks: MaskMaps) -> Columns:
    """Read one image and predict its mask in the calling process, which keeps the model."""
    batch = {key: [value] for key, value in block_row("", [image]).items()}
    replica = _loaded(masks.kind, masks.model, masks.workers)  # type: ignore[arg-type]  # mypy: a class has a hash
    return replica(masks.read(batch))
