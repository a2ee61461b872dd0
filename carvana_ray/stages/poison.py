"""Which picture kills the process that works on it: each is tried alone.

A process that dies names no file: Ray knows the block that it worked on. So the pictures of a block
that was lost again and again are tried one by one, each in a task that is not repeated.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ray

TRIES = 2  # a machine may be lost at that very moment; twice in a row it is the picture
AT_ONCE = 64


def find(
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
