"""What a job is going to do, in one line, and whether the disk has room for it."""

import logging
from typing import TYPE_CHECKING

from carvana_ray import storage
from carvana_ray.runtime.resources import WorkerAllocation

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

# Needs are estimates, of pictures like Kaggle's: below this much more of free space it may not do.
TIGHT = 1.25


def announce(job: str, what: str, out: str, needed: int, where: str = "") -> None:
    """Say in the log what a job will do, and warn where the disk may be too small for it.

    Args:
        job: its name.
        what: it will do.
        out: folder of its results.
        needed: bytes that are still to be written there, an estimate.
        where: it runs.
    """
    free = storage.free_space(out)
    room = f"needs about {format_bytes(needed)}"
    if free is not None:
        room += f", {format_bytes(free)} are free"
    log.info("%s", "; ".join(filter(None, [f"{job}: {what}", where, room])))
    if free is not None and free < TIGHT * needed:
        log.warning(
            "%s: the disk of %s may be too small: %s are free, about %s are needed",
            job,
            out,
            format_bytes(free),
            format_bytes(needed),
        )


def count_of(count: int, what: str, done: int = 0) -> str:
    """Return a number of things, and how many of them are done: ``100,064 pictures, 256 done``."""
    text = f"{count:,} {what if count != 1 else what.removesuffix('s')}"
    return f"{text}, {done:,} of them done before" if done else text


def describe_workers(workers: WorkerAllocation) -> str:
    """Return where networks run: ``2 GPUs``, ``1 process of 2 CPUs``."""
    if workers.use_gpu:
        gpus = count_of(workers.count, "GPUs")
        return f"{gpus} (decoding {workers.decode:.0%} of JPEGs)" if workers.decode else gpus
    each = f"of {count_of(workers.cpus, 'CPUs')}"
    return f"1 process {each}" if workers.count == 1 else f"{workers.count} processes {each}"


def format_bytes(count: int) -> str:
    """Return bytes in words: ``12 MB``, ``1.3 GB``, ``61 GB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if count >= 0.9995 * scale:
            value = count / scale
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
    return f"{max(count, 0) / 1e6:,.0f} MB"
