"""Finds the images that crash the process that works on them, and runs all others.

Ray knows which block a process was working on when it died, but not which image. So the images of a
lost block are tried one by one, each in a task without retries.
"""

import gc
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray

from carvana_ray.data import quarantine
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

LOST_BLOCKS = 16  # blocks that a pass may lose to crashing images
LOST_A_REPLICA = 4  # further blocks per worker: those it held when its machine was lost
PASSES = 3
TRIES = 2  # a machine may be lost at that very moment; twice in a row it is the image
AT_ONCE = 64
NO_REPLICAS = WorkerAllocation(count=0, cpus=1, use_gpu=False)  # tasks of one CPU


class Block(Protocol):
    """A named block of images."""

    @property
    def name(self) -> str: ...

    @property
    def entries(self) -> Sequence[FileInfo]: ...


B = TypeVar("B", bound=Block)


def run_with_isolation(
    blocks: Sequence[B],
    run_blocks: Callable[[Sequence[B], Mapping[str, str], int], Collection[str]],
    work: Callable[[Any], object],
    workers: WorkerAllocation = NO_REPLICAS,
    input_of: Callable[[str], object] = str,
) -> None:
    """Run blocks, and repeat those that are lost with a machine or by a crashing image.

    The crashing images are found, and the next pass treats them as bad images.

    Args:
        blocks: to run.
        run_blocks: called with blocks, the preset status of images that must not be read, and the
            number of blocks that may be lost: none in the last pass. It returns the names of the
            blocks that are done.
        work, input_of: see `find_crashing`; `work` does the same as `run_blocks` for one image.
        workers: the replicas that do the work.
    """
    max_lost = LOST_BLOCKS + LOST_A_REPLICA * workers.count
    pending: Sequence[B] = blocks
    preset_status: dict[str, str] = {}
    for passes_left in reversed(range(PASSES)):
        done = run_blocks(pending, preset_status, max_lost if passes_left else 0)
        pending = [block for block in pending if block.name not in done]
        if not pending:
            break
        log.warning("blocks lost with their processes: %d; trying their images", len(pending))
        # A replica that was about to restart keeps its CPUs and its GPU as long as the dataset
        # exists, and a cycle of references keeps that alive.
        gc.collect()
        names = [entry.name for block in pending for entry in block.entries]
        preset_status |= dict.fromkeys(
            find_crashing(names, work, workers, input_of), quarantine.CRASH
        )


def find_crashing(
    names: Sequence[str],
    work: Callable[[Any], object],
    workers: WorkerAllocation = NO_REPLICAS,
    input_of: Callable[[str], object] = str,
) -> list[str]:
    """Return the names whose work kills its process.

    Each is tried in a task with the resources of one of the workers.

    Args:
        names: of images.
        work: called with the input of one image. All processes get it with all that it refers to.
        workers: the replicas that do the work.
        input_of: returns the input of one image by its name. Only this image's process gets it.
    """

    @ray.remote(max_retries=0, num_cpus=workers.cpus, num_gpus=int(workers.use_gpu))
    def work_on(item: Any) -> None:
        work(item)

    suspects = list(names)
    for _ in range(TRIES):
        died = []
        for start in range(0, len(suspects), AT_ONCE):
            chunk = suspects[start : start + AT_ONCE]
            refs = [work_on.remote(input_of(name)) for name in chunk]
            died += [name for name, ref in zip(chunk, refs, strict=True) if not _survived(ref)]
        suspects = died
    return suspects


def _survived(ref: Any) -> bool:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError:
        return True  # an exception in a process that lives
    except ray.exceptions.RayError:
        return False
    return True
