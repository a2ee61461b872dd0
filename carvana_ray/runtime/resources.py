"""Which CPUs and GPUs of a cluster a job's workers get.

The arithmetic runs before any worker starts, because Ray waits forever for resources that the
cluster does not have.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from carvana_ray.config import ModelFlags, TrainFlags, UseModelFlags
from carvana_ray.errors import InputError
from carvana_ray.runtime.wording import count_of


@dataclass(frozen=True)
class ClusterResources:
    """The logical CPUs and GPUs of a cluster.

    Attributes:
        per_node: (CPUs, GPUs) of each node; empty for one node that has all of them.
        autoscaler_max: (CPUs, GPUs) that the cluster has when the autoscaler has added all nodes
            it may add; None without an autoscaler.
    """

    cpus: int
    gpus: int
    nodes: int
    per_node: tuple[tuple[int, int], ...] = ()
    autoscaler_max: tuple[int, int] | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The most (CPUs, GPUs) that a job can get."""
        return self.autoscaler_max or (self.cpus, self.gpus)


@dataclass(frozen=True)
class WorkerAllocation:
    """The processes that each hold a network: training workers or prediction replicas.

    Attributes:
        count: number of processes.
        cpus: logical CPUs, and torch threads, of each process.
        use_gpu: whether each process has a GPU.
        decode_on_gpu: whether these GPUs decode the JPEGs, too.
    """

    count: int
    cpus: int
    use_gpu: bool
    decode_on_gpu: bool = False


def allocate_workers(flags: ModelFlags, cluster: ClusterResources) -> WorkerAllocation:
    """Return the workers of a job. One CPU stays free for the processes that read images.

    Raises:
        InputError: the requested workers do not fit the cluster, its autoscaler's nodes included.
    """
    cpus, gpus = cluster.limits
    use_gpu = flags.device == "cuda" or (flags.device == "auto" and gpus > 0)
    if use_gpu and not gpus:
        raise InputError("--device cuda: Ray finds no GPU here; use --device cpu")
    count = flags.workers or ((cluster.gpus or 1) if use_gpu else 1)
    flag, least = f"--workers {count}", count
    if isinstance(flags, TrainFlags) and flags.min_workers:
        least = flags.min_workers
        flag = f"--min-workers {least}"
    _require_totals(flag, least, use_gpu, cluster)
    decode_on_gpu = _decode_on_gpu(flags, use_gpu)
    if cluster.autoscaler_max:  # the future nodes are unknown, so each worker takes one CPU
        return WorkerAllocation(count, 1, use_gpu, decode_on_gpu)
    per_node = cluster.per_node or ((cpus, gpus),)
    each = 1 if use_gpu else _cpus_per_worker(per_node, count, cpus - 1)
    if (fitting := _count_fitting(per_node, each, use_gpu)) < least:
        raise InputError(
            f"{flag}: the nodes have room for {fitting}, since a worker's "
            f"CPU{' and GPU' if use_gpu else ''} must be on one node; use fewer workers"
        )
    return WorkerAllocation(count, each, use_gpu, decode_on_gpu)


def _require_totals(flag: str, workers: int, use_gpu: bool, cluster: ClusterResources) -> None:
    """Raise `InputError` if all nodes together have too few CPUs or GPUs."""
    cpus, gpus = cluster.limits
    subject = "the autoscaler provides up to" if cluster.autoscaler_max else "the cluster has"
    available = f"{subject} {count_of(cpus, 'CPUs')} and {count_of(gpus, 'GPUs')}"
    if use_gpu and workers > gpus:
        raise InputError(f"{flag}: each worker needs a GPU; {available}")
    if workers + 1 > cpus:
        raise InputError(
            f"{flag}: needs {workers + 1} CPUs (one for each worker, one to read images); "
            f"{available}; use fewer workers, more nodes, or --num-cpus {workers + 1} on one "
            "machine"
        )


def _decode_on_gpu(flags: ModelFlags, use_gpu: bool) -> bool:
    """Return whether GPUs decode JPEGs; raise `InputError` if --decode gpu cannot be met."""
    if not isinstance(flags, UseModelFlags) or flags.decode == "cpu":
        return False
    if not use_gpu:
        raise InputError("--decode gpu: the model runs on CPUs here; use --decode cpu")
    if not find_spec("torchvision"):  # all nodes have the packages of this one
        raise InputError(
            "--decode gpu: needs torchvision, of the same release as torch "
            "(pip install torchvision==0.28.0)"
        )
    return True


def _cpus_per_worker(per_node: tuple[tuple[int, int], ...], workers: int, cpus: int) -> int:
    """Return the most CPUs that each worker can have. A worker's CPUs are on one node."""
    counts = range(cpus // workers, 1, -1)
    return next((n for n in counts if _count_fitting(per_node, n, False) >= workers), 1)


def _count_fitting(per_node: tuple[tuple[int, int], ...], cpus: int, use_gpu: bool) -> int:
    """Return the number of workers with `cpus` CPUs each, and a GPU, that fit the nodes."""
    return sum(min(node[0] // cpus, node[1] if use_gpu else node[0]) for node in per_node)
