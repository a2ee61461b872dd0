"""Calls the maps of a job with Ray Data, see `Engine`."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ray.data
import ray.exceptions

from carvana_ray import storage
from carvana_ray.stages.engine import LastMap, Map, MaskMaps, Rows
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.crash_isolation import StartTrial
from carvana_ray.stages.ingest.datasets import RETRIES, from_blocks
from carvana_ray.stages.ingest.ray_trials import LOST_A_REPLICA, in_ray_tasks
from carvana_ray.stages.predict.replica import (
    Replica,
    predict_one,
    reader_resources,
    replica_resources,
)
from carvana_ray.storage import FileInfo


class RayEngine:
    """The engine that runs on the open Ray session."""

    held = LOST_A_REPLICA
    errors: tuple[type[Exception], ...] = (ray.exceptions.RayError,)

    def chain(self, rows: Rows, masks: MaskMaps, last: LastMap, max_lost: int) -> Iterator[Columns]:
        """See `Engine.chain`."""
        made = chain_dataset(rows, masks, last, max_lost)
        yield from made.iter_batches(batch_size=None)
        if masks.profile:
            uri = storage.join(masks.profile, "predict-data.txt")
            storage.write_atomic(uri, made.stats().encode(), replace=True)

    def map_images(
        self, rows: Rows, work: Map, at_once: int, max_lost: int = 0
    ) -> Iterator[Columns]:
        """See `Engine.map_images`."""
        mapped = from_blocks(list(rows), max_lost).map_batches(
            work,
            batch_size=None,
            max_retries=RETRIES,
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(at_once),
        )
        yield from mapped.iter_batches(batch_size=None)

    def map_files(self, rows: Rows, work: Map, light: bool = False) -> Iterator[Columns]:
        """See `Engine.map_files`.

        Light tasks are bounded by their number alone, since idle replicas may still hold all CPUs.
        """
        resources: dict[str, Any] = {"num_cpus": 1}
        if light:
            at_once = min(int(ray.cluster_resources().get("CPU", 1)), len(rows))
            compute = ray.data.TaskPoolStrategy(max(at_once, 1))
            resources = {"num_cpus": 0, "compute": compute}
        dataset = from_blocks(list(rows)).map_batches(
            work, batch_size=None, max_retries=RETRIES, **resources
        )
        yield from dataset.iter_batches(batch_size=None)

    def try_chain(self, masks: MaskMaps, last: LastMap | None = None) -> StartTrial:
        """See `Engine.try_chain`. The task has the resources of one of the workers."""
        masks = dataclasses.replace(masks, images=())  # which all tasks would get
        work = partial(_try_chain, masks=masks, trial=last.trial if last else None)
        return in_ray_tasks(work, masks.workers)

    def try_map(
        self, work: Callable[[Any], object], input_of: Callable[[FileInfo], object]
    ) -> StartTrial:
        """See `Engine.try_map`."""
        return in_ray_tasks(work, input_of=input_of)


def chain_dataset(
    rows: Rows, masks: MaskMaps, last: LastMap, max_lost: int = 0
) -> ray.data.Dataset:
    """Return the dataset of `Engine.chain`."""
    # The bound is not in CPUs: for a CPU the writers would wait behind the readers, or behind
    # replicas on CPUs, which take all of them (see `cpu_map_resources`).
    resources: dict[str, Any] = {"num_cpus": 1}
    if last.at_once:
        resources = {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(last.at_once)}
    return (
        from_blocks(list(rows), max_lost)
        .map_batches(masks.read, **reader_resources(masks.workers, masks.images))
        .map_batches(
            Replica,
            fn_constructor_kwargs={
                "kind": masks.kind,
                "model": masks.model,
                "workers": masks.workers,
                "profile": masks.profile,
            },
            **replica_resources(masks.workers, masks.downscale),
        )
        .map_batches(
            last.work,
            batch_size=None,
            batch_format="pyarrow" if last.tables else "default",
            max_retries=RETRIES,
            **resources,
        )
    )


def _try_chain(image: FileInfo, masks: MaskMaps, trial: Map | None) -> None:
    result = predict_one(image, masks)
    if trial:
        trial(result)
