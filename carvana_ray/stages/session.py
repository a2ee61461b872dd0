"""A Ray session: join the cluster that RAY_ADDRESS names, or start Ray on this machine."""

import contextlib
import functools
import logging
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants
from ray._private import utils as ray_utils

from carvana_ray.errors import InputError
from carvana_ray.runtime.machine import default_cpus
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.stderr_filter import drop_lines
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.autoscaler import autoscaler_max

log = logging.getLogger(__name__)

TOKEN_ADVICE = (
    "export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH=FILE or the token in ~/.ray/auth_token, "
    "on every node and here"
)

LISTENER_WAIT_S = 5.0

# Bytes of the longest path of a socket, less /session_DATE_TIME_MICROS_PID/sockets/plasma_store.
MAX_TEMP_DIR_BYTES = 107 - 64
SHORT_TEMP_DIR = "/tmp"

# Ray prints a line with these words if no cluster answers, and `_join` says so in better ones.
CONNECTION_WARNING = b"gcs_client.cc"
# Ray prints an error with these words for each actor pool of Ray Data.
RESTART_WARNING = b"has constructor arguments in the object store"


@contextlib.contextmanager
def session(num_cpus: int | None = None, verbose: bool = False) -> Iterator[ClusterResources]:
    """Open a Ray session for the block, or use the open one.

    Args:
        num_cpus: of a local session, see `default_cpus`.
        verbose: show the log of Ray and of its processes.
    """
    close = not ray.is_initialized()
    if close:
        _open(num_cpus, verbose)
    _configure_ray_data(verbose)
    try:
        yield _cluster_resources()
    except KeyboardInterrupt:
        close = False  # the process ends at once, and Ray with it: see `runtime.signals`
        raise
    finally:
        if close:
            ray.shutdown()


def joins_cluster() -> bool:
    """Return whether `session` uses a running Ray instead of starting one."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))


def log_resources(cluster: ClusterResources) -> None:
    """Log the machines, CPUs and GPUs of a session."""
    if not os.environ.get("RAY_ADDRESS"):
        # The user knows the CPUs of the machine, not the logical one more of `default_cpus`.
        own = cluster.cpus == default_cpus()
        found = count_of(cluster.cpus - own, "CPUs" if own else "logical CPUs")
        log.info(
            "Ray: this machine, %s, %s",
            found,
            count_of(cluster.gpus, "GPUs") if cluster.gpus else "no GPU",
        )
        return
    totals = (cluster.nodes, "nodes"), (cluster.cpus, "CPUs"), (cluster.gpus, "GPUs")
    log.info("Ray: %s", ", ".join(count_of(*count) for count in totals))
    if cluster.autoscaler_max:
        cpus, gpus = cluster.autoscaler_max
        log.info(
            "the autoscaler provides up to %s and %s; request them with --workers N",
            count_of(cpus, "CPUs"),
            count_of(gpus, "GPUs"),
        )


def _open(num_cpus: int | None, verbose: bool) -> None:
    level = logging.INFO if verbose else logging.ERROR
    _keep_signal_handlers()
    connect = functools.partial(ray.init, logging_level=level, log_to_driver=verbose)
    if joins_cluster():
        with contextlib.nullcontext() if verbose else drop_lines(CONNECTION_WARNING):
            _join(connect)
        return
    # A job has more readers, writers, replicas and actors than CPUs. Beyond this number Ray ends
    # idle processes after a second, only to start new ones for the next task.
    os.environ.setdefault("RAY_num_workers_soft_limit", str(2 * default_cpus() + 8))
    _use_short_temp_dir()
    connect(address="local", num_cpus=num_cpus or default_cpus(), include_dashboard=False)


def _keep_signal_handlers() -> None:
    """Make `ray.init` leave SIGTERM to `runtime.signals`.

    Ray installs a handler in Python that ends with exit code 1 or 15, and one in native code that
    prints a stack and aborts the process after 3 s. The signal cannot be blocked meanwhile, because
    Ray's processes would inherit that. Another thread cannot call `ray.init`, because the kernel
    ends Ray's processes together with the thread that started them. Ray's version is pinned.
    """
    ray_utils.set_sigterm_handler = lambda handler: None
    # Not the environment variable of this name, which Ray's processes would inherit.
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True


def _use_short_temp_dir() -> None:
    """Keep Ray's sockets below a path that is short enough for them.

    Raises:
        InputError: RAY_TMPDIR is too long.
    """
    folder = get_default_ray_temp_dir()
    if len(os.fsencode(folder)) <= MAX_TEMP_DIR_BYTES:
        return
    if os.environ.get("RAY_TMPDIR"):
        raise InputError(
            f"RAY_TMPDIR {os.environ['RAY_TMPDIR']}: too long for Ray's sockets; set it to a "
            f"folder of at most {MAX_TEMP_DIR_BYTES - len('/ray')} bytes"
        )
    log.info("%s is too long for Ray's sockets; Ray uses %s/ray", folder, SHORT_TEMP_DIR)
    os.environ["RAY_TMPDIR"] = SHORT_TEMP_DIR


def _join(connect: Callable[[], object]) -> None:
    """Join the cluster that RAY_ADDRESS names; raise `InputError` if that fails."""
    # Connect once (40 s). Ray's default of 20 attempts blocks silently for 14 minutes.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    address = os.environ.get("RAY_ADDRESS", "")
    if re.match("https?://", address):
        raise InputError(
            f"RAY_ADDRESS {address}: the address for `ray job submit`; unset RAY_ADDRESS to run "
            "this job on this machine"
        )
    try:
        _require_listener(address)
        connect()
    except (ray.exceptions.AuthenticationError, OSError) as error:
        if isinstance(error, OSError) and "InvalidAuthToken" not in str(error.__cause__):
            raise InputError(
                f"RAY_ADDRESS {address}: no Ray cluster answers there; start it, or unset "
                "RAY_ADDRESS to run this job on this machine"
            ) from error
        raise InputError(
            f"RAY_ADDRESS {address}: the cluster requires a token: {TOKEN_ADVICE}"
        ) from error
    except ValueError as error:
        raise InputError(f"RAY_ADDRESS {address}: {error}; use host:port, or unset it") from error
    if os.environ.get("RAY_AUTH_MODE") != "token" and len(ray.nodes()) > 1:
        log.warning(
            "this cluster runs without authentication: anyone who can reach its ports can run "
            "code on it. Restart it with a token: %s",
            TOKEN_ADVICE,
        )


def _require_listener(address: str) -> None:
    """Raise `OSError` if nothing listens at ``host:port``; Ray itself needs 40 s to say so."""
    if found := re.fullmatch(r"\[?([^/]+?)\]?:(\d{1,5})", address):  # else "auto", or ray://
        socket.create_connection((found[1], int(found[2])), LISTENER_WAIT_S).close()


def _cluster_resources() -> ClusterResources:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    per_node = tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive)
    cpus, gpus = sum(cpus for cpus, _ in per_node), sum(gpus for _, gpus in per_node)
    return ClusterResources(cpus, gpus, len(per_node), per_node, autoscaler_max(cpus, gpus))


def _configure_ray_data(verbose: bool) -> None:
    """Turn Ray Data's progress display off, which would mix with the job's own.

    Without `verbose` also silence the logs of Ray Data and Ray Train.
    """
    import ray.data  # takes seconds, so it comes after the start of Ray; it sets up its own log

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if verbose:
        return
    # `ray_remote_args` is the only way to limit the retries of a map's tasks.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    warnings.filterwarnings(
        "ignore", message="The (min|max)imum number of concurrent (tasks|actors)"
    )
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"
    # It logs 25 lines for each block that a lost machine held; without traceback it is one line.
    executor = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    executor.addFilter(_drop_traceback)
    _drop_restart_warning()


@functools.cache  # once per process
def _drop_restart_warning() -> None:
    """Make the start of an actor in Ray Data's pools print no `RESTART_WARNING`.

    The arguments in question are Ray Data's own: the map itself and its context, which the pool
    keeps as long as it lives. So no way to pass ours avoids the line
    (https://github.com/ray-project/ray/issues/53727).
    """
    from ray.data._internal.execution.operators import actor_pool_map_operator as pools

    start = pools.ActorPoolMapOperator._start_actor

    def start_actor(*args: Any, **kwargs: Any) -> Any:
        with drop_lines(RESTART_WARNING):
            return start(*args, **kwargs)

    pools.ActorPoolMapOperator._start_actor = start_actor  # type: ignore[method-assign]


def _drop_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True
