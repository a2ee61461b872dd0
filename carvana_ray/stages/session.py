"""A Ray session: join the cluster that the job runs on, or start one on this machine."""

import contextlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import ray

from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources, autoscaler_limits

log = logging.getLogger(__name__)

TOKEN = (
    "export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH=FILE or the token in ~/.ray/auth_token, "
    "on every node and here"
)
LAUNCHED = "~/ray_bootstrap_config.yaml"  # `ray up` leaves it on the head, in JSON


@contextlib.contextmanager
def session(num_cpus: int | None = None, verbose: bool = False) -> Iterator[ClusterResources]:
    """Open a Ray session for the block; one that is open is used as it is.

    With RAY_ADDRESS set, as `ray job submit` does, that cluster is joined.

    Args:
        num_cpus: see `foresee`.
        verbose: show what Ray and its processes say.
    """
    logs: dict[str, Any] = {
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "log_to_driver": verbose,
    }
    ours = not ray.is_initialized()
    if ours:
        if joins_cluster():
            _join(logs)
        else:
            # Readers, writers, replicas and Ray's own actors are more than the CPUs. Ray ends idle
            # processes beyond that number after a second, and starts them anew for the next task.
            os.environ.setdefault("RAY_num_workers_soft_limit", str(2 * _cpus() + 8))
            ray.init(
                address="local",
                num_cpus=num_cpus or _cpus(),
                include_dashboard=False,
                **logs,
            )
    _without_bars()  # first: to import Ray Data sets up its log
    if not verbose:
        _quiet()
    try:
        yield _look()
    except KeyboardInterrupt:
        raise  # see `job.finish`: the process ends at once, and Ray with it
    except BaseException:
        _close(ours)
        raise
    else:
        _close(ours)


def log_resources(cluster: ClusterResources) -> None:
    """Say in the log what there is to work with."""
    log.info("Ray: %d nodes, %d CPUs, %d GPUs", cluster.nodes, cluster.cpus, cluster.gpus)
    if cluster.autoscaler_max:
        log.info(
            "its autoscaler may bring it to %d CPUs and %d GPUs; --workers N asks for as many",
            *cluster.autoscaler_max,
        )


def _join(logs: dict[str, Any]) -> None:
    """Join the cluster that RAY_ADDRESS names.

    Raises:
        InputError: it wants a token that this process has not; or there is none at that address.
    """
    # One try, in which Ray waits for 40 s. Of its own twenty, nothing is heard for 14 minutes.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    address = os.environ.get("RAY_ADDRESS", "")
    if re.match("https?://", address):
        raise InputError(
            f"RAY_ADDRESS {address}: is where to submit jobs to (ray job submit ...); unset it to "
            "run this one on this machine"
        )
    try:
        ray.init(**logs)
    except (ray.exceptions.AuthenticationError, ConnectionError) as error:
        if isinstance(error, ConnectionError) and "InvalidAuthToken" not in str(error.__cause__):
            raise InputError(f"RAY_ADDRESS {address}: no Ray cluster answers there") from error
        raise InputError(f"RAY_ADDRESS {address}: this cluster wants its token: {TOKEN}") from error
    if os.environ.get("RAY_AUTH_MODE") != "token" and len(ray.nodes()) > 1:
        log.warning(
            "this cluster runs without authentication: whoever reaches its ports can run code on "
            "it. Start it anew with a token: %s",
            TOKEN,
        )


def _close(ours: bool) -> None:
    if ours:
        ray.shutdown()


def _look() -> ClusterResources:
    """Return what the cluster has, and what its autoscaler may make of it."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = tuple((int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive)
    cpus, gpus = (sum(node[kind] for node in each) for kind in (0, 1))
    return ClusterResources(cpus, gpus, len(each), each, _may_have(cpus, gpus))


def _may_have(cpus: int, gpus: int) -> tuple[int, int] | None:
    """Return the (CPUs, GPUs) that the cluster's autoscaler may bring it to; None: it has none."""
    most = ray._private.state.state.get_max_resources_from_cluster_config()  # as Ray Train asks it
    if most:
        return max(cpus, int(most.get("CPU", 0))), max(gpus, int(most.get("GPU", 0)))
    here = ray.get_runtime_context().get_node_id()
    (own,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    file = os.path.expanduser(LAUNCHED)
    if "node:__internal_head__" not in own or not os.path.exists(file):
        return None
    with open(file, "rb") as config:
        return autoscaler_limits(json.load(config), cpus, gpus)


def local_resources(num_cpus: int | None = None) -> ClusterResources:
    """Return what a session started on this machine will have, without starting it.

    Args:
        num_cpus: logical CPUs; None: one a core and one more, since the processes that read
            pictures wait most of the time that the network computes.

    Its GPUs are those that torch can use; Ray counts those that are there.
    """
    import torch  # seconds, which a job spends beside the start of Ray

    return ClusterResources(num_cpus or _cpus(), torch.cuda.device_count(), 1)


def _cpus() -> int:
    return (os.cpu_count() or 1) + 1


def joins_cluster() -> bool:
    """Return whether a session joins a cluster that runs, rather than start one."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))


def _short(record: logging.LogRecord) -> bool:
    """Take the traceback off a record; let it through."""
    record.exc_info = record.exc_text = None
    return True


def _quiet() -> None:
    """Leave the log to the job."""
    # Ray Data has no other way yet to bound the retries of a map's tasks.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    warnings.filterwarnings(
        "ignore", message="The (min|max)imum number of concurrent (tasks|actors)"
    )
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"
    # Of each block that is lost with a machine 25 lines; one is enough.
    logging.getLogger("ray.data._internal.execution.streaming_executor_state").addFilter(_short)


def _without_bars() -> None:
    """Leave the progress display to the job: Ray Data's own would run into it."""
    import ray.data  # like torch, see `foresee`

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
