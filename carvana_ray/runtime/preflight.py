"""The line that a job logs before it starts: the work, the workers and the free disk space."""

import logging

from carvana_ray import storage
from carvana_ray.runtime.resources import WorkerAllocation

log = logging.getLogger(__name__)


def announce(job: str, summary: str, out: str, where: str = "") -> None:
    """Log in one line what a job will do.

    Args:
        job: name of the job.
        summary: the work, such as ``5 epochs of 1,184 images``.
        out: folder of the results. Its free space is part of the line, unless it is in S3.
        where: the workers, see `describe_workers`.
    """
    free = storage.free_space(out)
    space = "" if free is None else f"{format_bytes(free)} free in {out}"
    log.info("%s", "; ".join(filter(None, [f"{job}: {summary}", where, space])))


def count_of(count: int, noun: str, done: int = 0) -> str:
    """Return a count with its noun: ``1 image``, ``100,064 images, 256 of them already done``.

    Args:
        count: how many.
        noun: in the plural, which ends with s.
        done: how many of them an earlier run has done.
    """
    text = f"{count:,} {noun if count != 1 else noun.removesuffix('s')}"
    return f"{text}, {done:,} of them already done" if done else text


def describe_workers(workers: WorkerAllocation) -> str:
    """Return where networks run: ``2 GPUs``, ``1 process of 2 CPUs``."""
    if workers.use_gpu:
        gpus = count_of(workers.count, "GPUs")
        return f"{gpus} (decoding JPEGs)" if workers.decode_on_gpu else gpus
    processes = "1 process" if workers.count == 1 else f"{workers.count} processes"
    return f"{processes} of {count_of(workers.cpus, 'CPUs')}"


def format_bytes(count: int) -> str:
    """Return a number of bytes with its unit: ``12 MB``, ``1.3 GB``, ``61 GB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if count >= 0.9995 * scale:
            value = count / scale
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
    return f"{count / 1e6:,.0f} MB"
