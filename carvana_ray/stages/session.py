"""A Ray session: join the cluster that the job runs on, or start one on this machine.

Also the arithmetic of who gets which CPUs, done before anything starts: what does not fit is said
at once, where Ray itself would wait for ever.
"""

import contextlib
import logging
import os
import warnings
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
    """What there is, and what there may be.

    Attributes:
        cpus, gpus: logical ones over all nodes.
        nodes: how many.
        each: (CPUs, GPUs) of each node; empty: of one node that has all.
        may_have: (CPUs, GPUs) that an autoscaler may bring it to, itself included; None: no
            autoscaler.
    """

    cpus: int
    gpus: int
    nodes: int
    each: tuple[tuple[int, int], ...] = ()
    may_have: tuple[int, int] | None = None


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
        cluster = _look()
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


def _look() -> Cluster:
    """Return what the cluster has, and what its autoscaler may make of it."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = tuple((int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive)
    cpus, gpus = (sum(node[kind] for node in each) for kind in (0, 1))
    most = ray._private.state.state.get_max_resources_from_cluster_config()  # as Ray Train asks it
    may_have = None
    if most:
        may_have = max(cpus, int(most.get("CPU", 0))), max(gpus, int(most.get("GPU", 0)))
    return Cluster(cpus, gpus, len(each), each, may_have)


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
    # Ray Data has no other way yet to bound the retries of a map's tasks.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def share_out(config: Network, cluster: Cluster) -> Workers:
    """Return the workers that a job gets of a cluster; one CPU remains for those who read pictures.

    Raises:
        InputError: what is asked for fits neither the cluster nor what its autoscaler may make of
            it. Ray would wait for it for ever.
    """
    cpus, gpus = cluster.may_have or (cluster.cpus, cluster.gpus)
    there = f"there are {cpus} CPUs and {gpus} GPUs"
    if cluster.may_have:
        there = f"the autoscaler may bring {cpus} CPUs and {gpus} GPUs"
    use_gpu = config.device == "cuda" or (config.device == "auto" and gpus > 0)
    if use_gpu and not gpus:
        raise InputError("--device cuda: Ray finds no GPU here; use --device cpu")
    asked = config.workers or ((cluster.gpus or 1) if use_gpu else 1)
    flag = f"--workers {asked}"
    least = asked
    if config.fewest_workers:
        least, flag = config.fewest_workers, f"--min-workers {config.fewest_workers}"
    if use_gpu and least > gpus:
        raise InputError(f"{flag}: each worker needs a GPU; {there}")
    if least + 1 > cpus:
        raise InputError(
            f"{flag}: needs {least + 1} CPUs (one a worker, one to read pictures); {there}; use "
            f"fewer workers, more nodes, or --num-cpus {least + 1} on one machine"
        )
    if cluster.may_have:  # nodes that are not there yet: no more is known of them
        return Workers(asked, 1, use_gpu)
    each = cluster.each or ((cpus, gpus),)
    per_worker = (cpus - 1) // asked if not use_gpu else 1
    while per_worker > 1 and _places(each, per_worker, use_gpu) < asked:
        per_worker -= 1  # a worker cannot take its CPUs from two nodes
    per_worker = max(per_worker, 1)
    if (places := _places(each, per_worker, use_gpu)) < least:
        raise InputError(
            f"{flag}: only {places} fit, since a worker's CPU{' and GPU' if use_gpu else ''} must "
            "be of one node"
        )
    return Workers(asked, per_worker, use_gpu)


def _places(each: tuple[tuple[int, int], ...], cpus: int, use_gpu: bool) -> int:
    """Return the number of workers that nodes of (CPUs, GPUs) have room for."""
    return sum(min(node[0] // cpus, node[1] if use_gpu else node[0]) for node in each)
