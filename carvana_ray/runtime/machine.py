"""The CPUs and GPUs of this machine."""

import os

from carvana_ray.runtime.resources import ClusterResources


def default_cpus() -> int:
    """Return the logical CPUs of a local session.

    One per core that this process may use (`taskset` may leave fewer than the machine has) and one
    more, because the processes that read images mostly wait while the network computes.
    """
    return len(os.sched_getaffinity(0)) + 1


def local_resources(num_cpus: int | None = None) -> ClusterResources:
    """Return the resources of a local session without starting it.

    The GPUs are those that torch can use; Ray also counts others.

    Args:
        num_cpus: logical CPUs; None: see `default_cpus`.
    """
    import torch  # takes seconds, so other processes start meanwhile

    return ClusterResources(num_cpus or default_cpus(), torch.cuda.device_count(), 1)
