"""Ray Train's part of training: start the workers, stream the batches to them, wait for the end."""

import dataclasses
import os
import re
from concurrent.futures import Future
from typing import Any

import ray
import ray.data
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from carvana_ray.checkpoints.train_state import latest_epoch
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.train.assemble_batches import BatchSpec, steps_per_block
from carvana_ray.stages.train.dataset import batch_stream, store_budget
from carvana_ray.stages.train.plan import TrainJob
from carvana_ray.stages.train.worker import train_loop_per_worker
from carvana_ray.training.loop import DivergedError

# Ray Train polls its workers this often and takes one report per poll. With its default of 2 s an
# epoch of a second would wait for the poll, and the end of training for two of them.
POLL_S = 0.25
MAX_FAILURES = 3  # of workers, each resumed from the last epoch, and of Ray Train's controller


class StreamDataConfig(DataConfig):
    """Builds the stream of batches when Ray Train has started the workers, and splits it.

    The number of workers (``--min-workers``) and the epoch to resume from are known only then.
    """

    def __init__(self, job: TrainJob, spec: BatchSpec) -> None:
        h, w = job.grid
        store = int(ray.cluster_resources().get("object_store_memory", 0))
        budget = store_budget(store, cached=2 * h * w * len(job.run.pairs))
        options = ray.data.ExecutionOptions(
            resource_limits=ray.data.ExecutionResources.for_limits(object_store_memory=budget),
            preserve_order=True,
        )
        super().__init__(enable_shard_locality=False, execution_options=options)
        self._job, self._spec = job, spec

    def __deepcopy__(self, _memo: Any) -> "StreamDataConfig":
        """Return itself: Ray Train copies its data config, and actor handles cannot be copied."""
        return self

    def configure(
        self, datasets: dict[str, ray.data.Dataset], world_size: int, *args: Any, **kwargs: Any
    ) -> list[dict[str, ray.data.DataIterator]]:
        """Return each worker's iterators over the stream, which replaces the placeholder data."""
        job = self._job
        plan = dataclasses.replace(self._spec.plan, workers=world_size)
        stream = batch_stream(
            dataclasses.replace(self._spec, plan=plan),
            first_epoch=latest_epoch(job.checkpoint_dir, job.network) or 0,
            steps=steps_per_block(plan.per_worker, job.grid),
            elastic=bool(job.flags.min_workers),
            on_gpu=job.workers.use_gpu,
        )
        return super().configure(dict.fromkeys(datasets, stream), world_size, *args, **kwargs)


def start_training(
    job: TrainJob, spec: BatchSpec, scratch: str, cache_bytes: int | None = None
) -> "Future[object]":
    """Start Ray Train in the background; wait for it with `wait_for_training`.

    Args:
        job, spec: the training and its stream of batches.
        scratch: a local folder for Ray Train's list of checkpoints, which stays empty.
        cache_bytes: see `keep_on_device`.
    """
    _set_ray_env(job.cluster)
    failures = FailureConfig(
        max_failures=MAX_FAILURES,
        controller_failure_limit=MAX_FAILURES,  # type: ignore[call-arg]
    )
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"job": job, "spec": spec, "cache_bytes": cache_bytes},
        scaling_config=_scaling_config(job),
        run_config=RunConfig(storage_path=scratch, failure_config=failures),
        datasets={"batches": ray.data.range(1)},  # a placeholder, see `StreamDataConfig`
        dataset_config=StreamDataConfig(job, spec),
    )
    # In the main thread fit() would replace the handler of Ctrl-C.
    return run_in_background(trainer.fit)


def wait_for_training(training: "Future[object]") -> None:
    """Wait until Ray Train has ended.

    Raises:
        DivergedError: the loss or a weight is not finite.
    """
    try:
        training.result()
    except Exception as error:
        for failure in getattr(error, "worker_failures", {}).values():
            if found := re.search(rf"{DivergedError.__name__}: (.*)", str(failure)):
                raise DivergedError(found[1]) from error
        raise


def _set_ray_env(cluster: ClusterResources) -> None:
    """Set the environment variables that Ray Train's controller inherits from the driver."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    if cluster.nodes == 1 and not cluster.autoscaler_max:
        # The watcher is an actor that takes 3 s of a core to start.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def _scaling_config(job: TrainJob) -> ScalingConfig:
    workers, min_workers = job.workers, job.flags.min_workers
    # Ray's type hint lacks the pair (min, max) of elastic training.
    num_workers: Any = workers.count
    if min_workers and min_workers < workers.count:
        num_workers = (min_workers, workers.count)
    return ScalingConfig(
        num_workers=num_workers,
        use_gpu=workers.use_gpu,
        resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
    )
