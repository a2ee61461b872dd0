"""Finds the images that crash the process that works on them, and runs all others.

A process that dies leaves its block unfinished, and which image it died of is not known. So the
images of a lost block are tried one by one, each in a process of its own. A process may also die
because the machine is short of memory or is lost, which says nothing about the image.
"""

import gc
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeVar

from carvana_ray.data import quarantine
from carvana_ray.errors import IncompleteError
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

LOST_BLOCKS = 16  # blocks that a pass may lose to crashing images
PASSES = 3
KILLS = 2  # of its process, alone, that prove an image guilty
LOSSES = 4  # tries of an image that the machine may spoil before the run ends
PAUSE_S = 1.0  # after the first of them, for memory to be freed; twice as long after the second
AT_ONCE = 64


class Death(NamedTuple):
    """The death of a process that worked on one image alone."""

    cause: Literal["crash", "memory", "machine"]
    text: str = ""


Trial = Callable[[], Death | None]  # waits for the end of the work on one image
StartTrial = Callable[[FileInfo], Trial]  # starts the work on one image in another process


class Block(Protocol):
    """A named block of images."""

    @property
    def name(self) -> str: ...

    @property
    def entries(self) -> Sequence[FileInfo]: ...


B = TypeVar("B", bound=Block)


def run_with_isolation(
    blocks: Sequence[B],
    run_blocks: Callable[[Sequence[B], Mapping[FileInfo, str], int], Collection[str]],
    start: StartTrial,
    held: int = 0,
    crashing: Sequence[FileInfo] = (),
) -> None:
    """Run blocks, and repeat those that are lost with a machine or by a crashing image.

    The crashing images are found, and the next pass treats them as bad images.

    Args:
        blocks: to run.
        run_blocks: called with blocks, the preset status of images that must not be read, and the
            number of blocks that may be lost: none in the last pass. It returns the names of the
            blocks that are done.
        start: starts the same work on one image, see `find_crashing`.
        held: number of blocks that may be lost besides, with the machines that hold them.
        crashing: images that are known to crash their process.

    Raises:
        IncompleteError: see `find_crashing`.
    """
    pending: Sequence[B] = blocks
    preset_status = dict.fromkeys(crashing, quarantine.CRASH)
    for passes_left in reversed(range(PASSES)):
        done = run_blocks(pending, preset_status, LOST_BLOCKS + held if passes_left else 0)
        pending = [block for block in pending if block.name not in done]
        if not pending:
            break
        log.warning("blocks lost with their processes: %d; trying their images", len(pending))
        # A replica that was about to restart keeps its CPUs and its GPU as long as the dataset
        # exists, and a cycle of references keeps that alive.
        gc.collect()
        images = [image for block in pending for image in block.entries]
        found = find_crashing([image for image in images if image not in preset_status], start)
        preset_status |= dict.fromkeys(found, quarantine.CRASH)


def find_crashing(images: Sequence[FileInfo], start: StartTrial) -> list[FileInfo]:
    """Return the images whose work kills its process.

    Those whose process dies are tried again without any other work: only an image that kills its
    process then is guilty.

    Raises:
        IncompleteError: a machine is too short of memory, or is lost too often, to tell.
    """
    suspects: list[FileInfo] = []
    for first in range(0, len(images), AT_ONCE):
        chunk = images[first : first + AT_ONCE]
        trials = list(map(start, chunk))
        suspects += [image for image, trial in zip(chunk, trials, strict=True) if trial()]
    return [image for image in suspects if _kills_alone(image.name, partial(start, image))]


def _kills_alone(name: str, start: Callable[[], Trial]) -> bool:
    """Return whether the work that `start` starts kills its process `KILLS` times."""
    kills = losses = 0
    while kills < KILLS:
        death = start()()
        if death is None:
            return False
        if death.cause == "crash":
            kills += 1
            continue
        losses += 1
        if losses == LOSSES:
            memory = death.cause == "memory"
            cause = "out of memory" if memory else f"a machine was lost ({death.text})"
            advice = "free memory, or use a larger machine, and run" if memory else "run"
            raise IncompleteError(
                f"{cause} while reading {name} alone, {losses} times; all finished work is kept; "
                f"{advice} the same command again to continue"
            )
        time.sleep(PAUSE_S * losses)
    return True
