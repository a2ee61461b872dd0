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
from carvana_ray.config.flags import TrainFlags
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation
from carvana_ray.stages.train.assemble_batches import steps_per_block
from carvana_ray.stages.train.dataset import batch_stream, store_budget
from carvana_ray.stages.train.worker import WorkerConfig, train_loop_per_worker
from carvana_ray.training.loop import DivergedError
from carvana_ray.training.run import with_workers

# Ray Train polls its workers this often and takes one report per poll. With its default of 2 s an
# epoch of a second would wait for the poll, and the end of training for two of them.
POLL_S = 0.25
MAX_FAILURES = 3  # of workers, each resumed from the last epoch, and of Ray Train's controller


class StreamDataConfig(DataConfig):
    """Builds the stream of batches when Ray Train has started the workers, and splits it.

    Only then are the number of workers (``--min-workers``) and, after a failure, the epoch to
    resume from known.

    Args:
        config: the workers' configuration.
        on_gpu: workers are on GPUs.
        object_store_bytes: limit of the object store for batches on their way.
    """

    def __init__(self, config: WorkerConfig, on_gpu: bool, object_store_bytes: int) -> None:
        options = ray.data.ExecutionOptions()
        options.preserve_order = True
        options.resource_limits = ray.data.ExecutionResources.for_limits(
            object_store_memory=object_store_bytes
        )
        super().__init__(enable_shard_locality=False, execution_options=options)
        self._config, self._on_gpu = config, on_gpu

    def __deepcopy__(self, _memo: Any) -> "StreamDataConfig":
        """Return itself: Ray Train copies its data config, and actor handles cannot be copied."""
        return self

    def configure(
        self,
        datasets: dict[str, ray.data.Dataset],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **others: Any,
    ) -> list[dict[str, ray.data.DataIterator]]:
        """Return each worker's iterators over the stream, which replaces the placeholder data."""
        config = self._config
        plan = with_workers(config.spec.plan, world_size)
        stream = batch_stream(
            dataclasses.replace(config.spec, plan=plan),
            first_epoch=latest_epoch(config.checkpoint_dir, config.network) or 0,
            steps=steps_per_block(plan.per_worker, config.grid),
            elastic=bool(config.flags.min_workers),
            on_gpu=self._on_gpu,
        )
        streams = dict.fromkeys(datasets, stream)
        return super().configure(streams, world_size, worker_handles, worker_node_ids, **others)


def start_training(
    config: WorkerConfig,
    workers: WorkerAllocation,
    cluster: ClusterResources,
    pairs: int,
    scratch: str,
) -> "Future[object]":
    """Start Ray Train in the background; wait for it with `wait_for_training`.

    Args:
        config: the workers' configuration.
        workers: number of workers and their resources.
        cluster: resources of the cluster.
        pairs: number of decoded pairs, which share the object stores with the batches.
        scratch: local folder for Ray Train's list of checkpoints, which stays empty.
    """
    _set_ray_env(cluster)
    h, w = config.grid
    store = int(ray.cluster_resources().get("object_store_memory", 0))
    data_config = StreamDataConfig(
        config,
        on_gpu=workers.use_gpu,
        object_store_bytes=store_budget(store, cached=2 * h * w * pairs),
    )
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"config": config},
        scaling_config=_scaling_config(config.flags, workers),
        run_config=RunConfig(
            storage_path=scratch,
            failure_config=FailureConfig(
                max_failures=MAX_FAILURES,
                controller_failure_limit=MAX_FAILURES,  # type: ignore[call-arg]
            ),
        ),
        datasets={"batches": ray.data.range(1)},  # a placeholder, see `StreamDataConfig`
        dataset_config=data_config,
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


def _scaling_config(flags: TrainFlags, workers: WorkerAllocation) -> ScalingConfig:
    min_workers = flags.min_workers or workers.count
    elastic = min_workers < workers.count
    # Ray's type hint lacks the pair (min, max) of elastic training.
    num_workers: Any = (min_workers, workers.count) if elastic else workers.count
    return ScalingConfig(
        num_workers=num_workers,
        use_gpu=workers.use_gpu,
        resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
    )
