"""Which picture kills the process that works on it: each is tried alone.

A process that dies names no file: Ray knows the block that it worked on. So the pictures of a block
that was lost again and again are tried one by one, each in a task that is not repeated.
"""

import gc
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray

from carvana_ray.data import quarantine
from carvana_ray.storage.router import FileInfo

LOST_BLOCKS = 16  # with a picture that kills in each, before it is the machines that are at fault


LOST_A_REPLICA = 4  # more of them: those that it had when its machine was lost

log = logging.getLogger(__name__)

PASSES = 3  # over what is left to do

TRIES = 2  # a machine may be lost at that very moment; twice in a row it is the picture
AT_ONCE = 64


class Block(Protocol):
    """Pictures that are worked on together, and a name for them."""

    @property
    def name(self) -> str: ...

    @property
    def entries(self) -> Sequence[FileInfo]: ...


B = TypeVar("B", bound=Block)


def run_with_isolation(
    blocks: Sequence[B],
    make: Callable[[Sequence[B], Mapping[str, str], int], Collection[str]],
    lost: int,
    killers: Callable[[list[str]], list[str]],
) -> None:
    """Make blocks, of which some may be lost, and make those again.

    They are lost with a picture in them that kills each process that works on it, or with a
    machine. All others are done by then. Those pictures are looked for, and are bad ones in the
    next pass; the last one must lose none.

    Args:
        blocks: to make.
        make: called with blocks, the status of pictures that must not be read, and how many blocks
            may be lost; returns the names of those that were made.
        lost: how many.
        killers: returns those of some pictures that kill, see `find`.
    """
    again: Sequence[B] = blocks
    verdicts: dict[str, str] = {}
    for passes_left in reversed(range(PASSES)):
        made = make(again, verdicts, lost if passes_left else 0)
        again = [block for block in again if block.name not in made]
        if not again:
            break
        log.warning("%d blocks were lost with their processes; looking for why", len(again))
        # A replica that was about to restart lives on, with its CPUs and its GPU, as long as the
        # data set does; that stands in a cycle of references.
        gc.collect()
        names = [entry.name for block in again for entry in block.entries]
        verdicts |= dict.fromkeys(killers(names), quarantine.CRASH)


def find_crashing(
    names: Sequence[str], work: Callable[[str], object], num_cpus: int = 1, num_gpus: int = 0
) -> list[str]:
    """Return the names whose work kills the process that does it.

    Args:
        names: to try.
        work: called with a name, in a process of the cluster.
        num_cpus, num_gpus: that it needs.
    """
    task: Any = ray.remote(max_retries=0, num_cpus=num_cpus, num_gpus=num_gpus)(work_on)
    suspects = list(names)
    for _ in range(TRIES):
        died = []
        for start in range(0, len(suspects), AT_ONCE):
            few = suspects[start : start + AT_ONCE]
            refs = [task.remote(work, name) for name in few]
            died += [name for name, ref in zip(few, refs, strict=True) if not _survived(ref)]
        suspects = died
    return suspects


def work_on(work: Callable[[str], object], name: str) -> None:
    """Do the work, drop its result."""
    work(name)


def _survived(ref: Any) -> bool:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError:
        return True  # it raised an error, and lives
    except ray.exceptions.RayError:
        return False
    return True
