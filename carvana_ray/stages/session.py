"""A Ray session: join the cluster that the job runs on, or start one on this machine.

Also the arithmetic of who gets which CPUs, done before anything starts: what does not fit is said
at once, where Ray itself would wait for ever.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

import ray
import ray.data
import torch

from carvana_ray.config import Network
from carvana_ray.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """What there is: logical CPUs and GPUs over all nodes."""

    cpus: int
    gpus: int
    nodes: int


@dataclass(frozen=True)
class Workers:
    """Processes that hold a network each (training workers, or replicas for prediction).

    Attributes:
        count: how many.
        cpus: logical CPUs of each, and torch threads.
        use_gpu: one GPU each.
    """

    count: int
    cpus: int
    use_gpu: bool


@contextlib.contextmanager
def session(num_cpus: int | None = None) -> Iterator[Cluster]:
    """Open a Ray session for the block and tell what it has; a session that is open is used as it
    is.

    With RAY_ADDRESS set, as `ray job submit` does, that cluster is joined.

    Args:
        num_cpus: see `foresee`.
    """
    ours = not ray.is_initialized()
    if ours:
        _quiet()
        if joins():
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        else:
            machine = foresee(num_cpus)
            ray.init(
                address="local",
                num_cpus=machine.cpus,
                num_gpus=machine.gpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    try:
        has = ray.cluster_resources()
        cluster = Cluster(int(has.get("CPU", 0)), int(has.get("GPU", 0)), len(ray.nodes()))
        log.info("Ray: %d nodes, %d CPUs, %d GPUs", cluster.nodes, cluster.cpus, cluster.gpus)
        yield cluster
    except KeyboardInterrupt:
        raise  # see `job.finish`: the process ends at once, and Ray with it
    except BaseException:
        _close(ours)
        raise
    else:
        _close(ours)


def _close(ours: bool) -> None:
    if ours:
        ray.shutdown()


def foresee(num_cpus: int | None = None) -> Cluster:
    """Return what a session started on this machine will have, without starting it.

    Args:
        num_cpus: logical CPUs; None: one a core and one more, since the processes that read
            pictures wait most of the time that the network computes.
    """
    return Cluster(num_cpus or (os.cpu_count() or 1) + 1, torch.cuda.device_count(), 1)


def joins() -> bool:
    """Return whether a session joins a cluster that runs, rather than start one."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))


def _quiet() -> None:
    """Leave the progress display and the log to the job: Ray Data's own would run into it."""
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def share_out(config: Network, cluster: Cluster) -> Workers:
    """Return the workers that a job gets of a cluster; one CPU remains for those who read pictures.

    Raises:
        InputError: what is asked for does not fit.
    """
    use_gpu = config.device == "cuda" or (config.device == "auto" and cluster.gpus > 0)
    if use_gpu and not cluster.gpus:
        raise InputError("--device cuda: Ray finds no GPU here; use --device cpu")
    count = config.workers or (cluster.gpus if use_gpu else 1)
    if use_gpu and count > cluster.gpus:
        raise InputError(f"--workers {count}: there are {cluster.gpus} GPUs, each worker needs one")
    if count + 1 > cluster.cpus:
        raise InputError(
            f"--workers {count}: needs {count + 1} CPUs (one a worker, one to read pictures), "
            f"there are {cluster.cpus}; use fewer workers, more nodes, or --num-cpus {count + 1} "
            "on one machine"
        )
    return Workers(count, 1 if use_gpu else (cluster.cpus - 1) // count, use_gpu)
