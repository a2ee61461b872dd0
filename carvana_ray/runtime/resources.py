"""Who gets which CPUs and GPUs of a cluster: arithmetic, done before anything starts.

What does not fit is said at once, where Ray itself would wait for ever.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from carvana_ray.config.flags import EvaluateFlags, ModelFlags
from carvana_ray.errors import InputError


@dataclass(frozen=True)
class ClusterResources:
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
    autoscaler_max: tuple[int, int] | None = None


@dataclass(frozen=True)
class WorkerAllocation:
    """Processes that hold a network each (training workers, or replicas for prediction).

    Attributes:
        count: how many.
        cpus: logical CPUs of each, and torch threads.
        use_gpu: one GPU each.
        decode_on_gpu: these GPUs decode the JPEGs, too.
    """

    count: int
    cpus: int
    use_gpu: bool
    decode_on_gpu: bool = False


def allocate_workers(config: ModelFlags, cluster: ClusterResources) -> WorkerAllocation:
    """Return the workers that a job gets of a cluster; one CPU remains for those who read pictures.

    Raises:
        InputError: what is asked for fits neither the cluster nor what its autoscaler may make of
            it. Ray would wait for it for ever.
    """
    cpus, gpus = cluster.autoscaler_max or (cluster.cpus, cluster.gpus)
    there = f"there are {cpus} CPUs and {gpus} GPUs"
    if cluster.autoscaler_max:
        there = f"the autoscaler may bring {cpus} CPUs and {gpus} GPUs"
    use_gpu = config.device == "cuda" or (config.device == "auto" and gpus > 0)
    if use_gpu and not gpus:
        raise InputError("--device cuda: Ray finds no GPU here; use --device cpu")
    asked = config.workers or ((cluster.gpus or 1) if use_gpu else 1)
    flag = f"--workers {asked}"
    least = asked
    if config.min_workers_required:
        least, flag = config.min_workers_required, f"--min-workers {config.min_workers_required}"
    if use_gpu and least > gpus:
        raise InputError(f"{flag}: each worker needs a GPU; {there}")
    if least + 1 > cpus:
        raise InputError(
            f"{flag}: needs {least + 1} CPUs (one a worker, one to read pictures); {there}; use "
            f"fewer workers, more nodes, or --num-cpus {least + 1} on one machine"
        )
    decode_on_gpu = _decode_on_gpu(config, use_gpu)
    if cluster.autoscaler_max:  # nodes that are not there yet: no more is known of them
        return WorkerAllocation(asked, 1, use_gpu, decode_on_gpu)
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
    return WorkerAllocation(asked, per_worker, use_gpu, decode_on_gpu)


def _decode_on_gpu(config: ModelFlags, use_gpu: bool) -> bool:
    """Return whether the workers' GPUs decode JPEGs.

    Raises:
        InputError: `--decode gpu` without a GPU or torchvision.
    """
    if not isinstance(config, EvaluateFlags) or config.decode == "cpu":
        return False
    if not use_gpu:
        raise InputError("--decode gpu: the model runs on CPUs here; use --decode cpu")
    if not find_spec("torchvision"):  # here, and so on all nodes
        raise InputError(
            "--decode gpu: needs torchvision, of the same release as torch "
            "(pip install torchvision==0.28.0)"
        )
    return True


def _places(each: tuple[tuple[int, int], ...], cpus: int, use_gpu: bool) -> int:
    """Return the number of workers that nodes of (CPUs, GPUs) have room for."""
    return sum(min(node[0] // cpus, node[1] if use_gpu else node[0]) for node in each)


def autoscaler_limits(config: dict[str, Any], cpus: int, gpus: int) -> tuple[int, int]:
    """Return the (CPUs, GPUs) that an autoscaler may bring a cluster to.

    Args:
        config: of the cluster launcher, with the resources of its types of node filled in.
        cpus, gpus: that are there, which may be more by hand.
    """
    workers = [
        (kind.get("max_workers", 0), kind.get("resources", {}))
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    ]
    head = config["available_node_types"][config["head_node_type"]].get("resources", {})

    def most(name: str) -> int:
        left, total = config.get("max_workers", 0), head.get(name, 0)
        for count, resources in sorted(workers, key=lambda one: -one[1].get(name, 0)):
            taken = min(count, left)
            left, total = left - taken, total + taken * resources.get(name, 0)
        return int(total)

    return max(cpus, most("CPU")), max(gpus, most("GPU"))
