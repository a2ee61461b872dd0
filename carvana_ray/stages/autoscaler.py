"""The limits of a cluster's autoscaler: a job may ask for nodes that are not there yet."""

import json
import os
from collections.abc import Mapping
from typing import Any

import ray

LAUNCHER_CONFIG = "~/ray_bootstrap_config.yaml"  # `ray up` writes it on the head node, as JSON


def autoscaler_max(cpus: int, gpus: int) -> tuple[int, int] | None:
    """Return the (CPUs, GPUs) to which the autoscaler may grow the cluster, None without one.

    Args:
        cpus, gpus: that the cluster has now.
    """
    # Ray Train calls the same function; Ray has no public one.
    limits = ray._private.state.state.get_max_resources_from_cluster_config()
    if limits:
        return max(cpus, int(limits.get("CPU", 0))), max(gpus, int(limits.get("GPU", 0)))
    node_id = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id)
    path = os.path.expanduser(LAUNCHER_CONFIG)
    if "node:__internal_head__" not in resources or not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return launcher_limits(json.load(file), cpus, gpus)


def launcher_limits(config: Mapping[str, Any], cpus: int, gpus: int) -> tuple[int, int]:
    """Return the (CPUs, GPUs) that a configuration of `ray up` allows.

    Args:
        config: with the resources of its node types filled in.
        cpus, gpus: that the cluster has now; nodes started by hand may exceed the limits.
    """
    return max(cpus, _most(config, "CPU")), max(gpus, _most(config, "GPU"))


def _most(config: Mapping[str, Any], resource: str) -> int:
    """Return the head's amount of a resource plus that of the best workers within the limits."""
    types = dict(config["available_node_types"])
    total = types.pop(config["head_node_type"]).get("resources", {}).get(resource, 0)
    nodes_left = config.get("max_workers", 0)
    workers = [
        (kind.get("resources", {}).get(resource, 0), kind.get("max_workers", 0))
        for kind in types.values()
    ]
    for amount, max_workers in sorted(workers, reverse=True):
        nodes = min(max_workers, nodes_left)
        nodes_left, total = nodes_left - nodes, total + nodes * amount
    return int(total)
