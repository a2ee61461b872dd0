"""The line that a job logs before it starts: the work, the workers and the free disk space."""

import logging

from carvana_ray import storage
from carvana_ray.runtime import signals
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.runtime.wording import count_of, format_bytes

log = logging.getLogger(__name__)

# What is said if a job is stopped. Training says more: see `stages.train.stage`.
STOP_NOTES = {
    "sample": "finished images are kept, and the same command continues",
    "predict": "finished shards are kept, and the same command continues",
    "cutout": "finished cut-outs are kept, and the same command continues",
    "evaluate": "nothing is saved yet: the same command starts the evaluation anew",
}


def announce(job: str, summary: str, out: str, where: str = "") -> None:
    """Log in one line what a job will do, and set what is said if it is stopped.

    Args:
        job: name of the job.
        summary: the work, such as ``5 epochs of 1,184 images``.
        out: folder of the results. Its free space is part of the line, unless it is in S3.
        where: the workers, see `describe_workers`.
    """
    signals.set_stop_note(lambda: STOP_NOTES.get(job, signals.RUN_AGAIN))
    free = storage.free_space(out)
    space = "" if free is None else f"{format_bytes(free)} free in {out}"
    log.info("%s", "; ".join(filter(None, [f"{job}: {summary}", where, space])))


def describe_workers(workers: WorkerAllocation) -> str:
    """Return where networks run: ``2 GPUs``, ``1 process of 2 CPUs``."""
    if workers.use_gpu:
        gpus = count_of(workers.count, "GPUs")
        return f"{gpus} (decoding JPEGs)" if workers.decode_on_gpu else gpus
    processes = "1 process" if workers.count == 1 else f"{workers.count} processes"
    return f"{processes} of {count_of(workers.cpus, 'CPUs')}"
