"""The work on one image as a Ray task without retries: what does it do to its process?"""

from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from carvana_ray.errors import first_line
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest.crash_isolation import Death, StartTrial, Trial
from carvana_ray.storage import FileInfo

LOST_A_REPLICA = 4  # blocks per worker that are lost with its machine: those that it held
NO_REPLICAS = WorkerAllocation(count=0, cpus=1, use_gpu=False)  # tasks of one CPU


def itself(image: FileInfo) -> FileInfo:
    """Return the image: the input of work that needs nothing else."""
    return image


def in_ray_tasks(
    work: Callable[[Any], object],
    workers: WorkerAllocation = NO_REPLICAS,
    input_of: Callable[[FileInfo], object] = itself,
) -> StartTrial:
    """Return what starts the work on one image in a task with the resources of one worker.

    Args:
        work: called with the input of one image. All processes get it with all that it refers to.
        workers: the replicas that do the work otherwise.
        input_of: returns the input of one image. Only this image's process gets it.
    """

    @ray.remote(max_retries=0, num_cpus=workers.cpus, num_gpus=int(workers.use_gpu))
    def work_on(item: Any) -> None:
        work(item)

    def start(image: FileInfo) -> Trial:
        return partial(_death, work_on.remote(input_of(image)))

    return start


def _death(ref: Any) -> Death | None:
    """Return how the process of a task died; None if the process lives."""
    try:
        ray.get(ref)
    except RayTaskError:
        return None  # an exception in a process that lives
    except OutOfMemoryError as error:
        return Death("memory", first_line(error))
    except WorkerCrashedError as error:
        return Death("crash", first_line(error))
    except RayError as error:
        return Death("machine", first_line(error))
    return None
