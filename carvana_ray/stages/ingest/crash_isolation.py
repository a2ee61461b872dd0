"""Finds the images that crash the process that works on them, and runs all others.

Ray knows which block a process was working on when it died, but not which image. So the images of a
lost block are tried one by one, each in a task without retries. A process may also die because the
machine is short of memory or is lost, which says nothing about the image.
"""

import gc
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from carvana_ray.data import quarantine
from carvana_ray.errors import IncompleteError, first_line
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

LOST_BLOCKS = 16  # blocks that a pass may lose to crashing images
LOST_A_REPLICA = 4  # further blocks per worker: those it held when its machine was lost
PASSES = 3
KILLS = 2  # of its process, alone, that prove an image guilty
LOSSES = 4  # tries of an image that the machine may spoil before the run ends
PAUSE_S = 1.0  # after the first of them, for memory to be freed; twice as long after the second
AT_ONCE = 64
NO_REPLICAS = WorkerAllocation(count=0, cpus=1, use_gpu=False)  # tasks of one CPU


class Block(Protocol):
    """A named block of images."""

    @property
    def name(self) -> str: ...

    @property
    def entries(self) -> Sequence[FileInfo]: ...


B = TypeVar("B", bound=Block)


def itself(image: FileInfo) -> FileInfo:
    """Return the image: the input of work that needs nothing else."""
    return image


def run_with_isolation(
    blocks: Sequence[B],
    run_blocks: Callable[[Sequence[B], Mapping[FileInfo, str], int], Collection[str]],
    work: Callable[[Any], object],
    workers: WorkerAllocation = NO_REPLICAS,
    input_of: Callable[[FileInfo], object] = itself,
    crashing: Sequence[FileInfo] = (),
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
        crashing: images that are known to crash their process.

    Raises:
        IncompleteError: see `find_crashing`.
    """
    max_lost = LOST_BLOCKS + LOST_A_REPLICA * workers.count
    pending: Sequence[B] = blocks
    preset_status = dict.fromkeys(crashing, quarantine.CRASH)
    for passes_left in reversed(range(PASSES)):
        done = run_blocks(pending, preset_status, max_lost if passes_left else 0)
        pending = [block for block in pending if block.name not in done]
        if not pending:
            break
        log.warning("blocks lost with their processes: %d; trying their images", len(pending))
        # A replica that was about to restart keeps its CPUs and its GPU as long as the dataset
        # exists, and a cycle of references keeps that alive.
        gc.collect()
        images = [image for block in pending for image in block.entries]
        found = find_crashing(
            [image for image in images if image not in preset_status], work, workers, input_of
        )
        preset_status |= dict.fromkeys(found, quarantine.CRASH)


def find_crashing(
    images: Sequence[FileInfo],
    work: Callable[[Any], object],
    workers: WorkerAllocation = NO_REPLICAS,
    input_of: Callable[[FileInfo], object] = itself,
) -> list[FileInfo]:
    """Return the images whose work kills its process.

    Each is tried in a task with the resources of one of the workers. Those that fail are tried
    again without any other task: only an image that kills its process then is guilty.

    Args:
        images: to try.
        work: called with the input of one image. All processes get it with all that it refers to.
        workers: the replicas that do the work.
        input_of: returns the input of one image. Only this image's process gets it.

    Raises:
        IncompleteError: a machine is too short of memory, or is lost too often, to tell.
    """

    @ray.remote(max_retries=0, num_cpus=workers.cpus, num_gpus=int(workers.use_gpu))
    def work_on(item: Any) -> None:
        work(item)

    def start(image: FileInfo) -> Any:
        return work_on.remote(input_of(image))

    suspects: list[FileInfo] = []
    for first in range(0, len(images), AT_ONCE):
        chunk = images[first : first + AT_ONCE]
        refs = list(map(start, chunk))
        suspects += [image for image, ref in zip(chunk, refs, strict=True) if _death(ref)]
    return [image for image in suspects if _kills_alone(image.name, partial(start, image))]


def _kills_alone(name: str, start: Callable[[], Any]) -> bool:
    """Return whether the task that `start` starts kills its process `KILLS` times."""
    kills = losses = 0
    while kills < KILLS:
        death = _death(start())
        if death is None:
            return False
        if isinstance(death, WorkerCrashedError):
            kills += 1
            continue
        losses += 1
        if losses == LOSSES:
            memory = isinstance(death, OutOfMemoryError)
            cause = "out of memory" if memory else f"a machine was lost ({first_line(death)})"
            advice = "free memory, or use a larger machine, and run" if memory else "run"
            raise IncompleteError(
                f"{cause} while reading {name} alone, {losses} times; all finished work is kept; "
                f"{advice} the same command again to continue"
            )
        time.sleep(PAUSE_S * losses)
    return True


def _death(ref: Any) -> RayError | None:
    """Return the error of a task whose process died; None if the process lives."""
    try:
        ray.get(ref)
    except RayTaskError:
        return None  # an exception in a process that lives
    except RayError as error:
        return error
    return None
