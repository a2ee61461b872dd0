"""Run a stage in a Ray session: check the input, start or join Ray, run."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any, Protocol

from carvana_ray import config, storage
from carvana_ray.config import cli
from carvana_ray.errors import InputError
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.machine import local_resources
from carvana_ray.runtime.resources import ClusterResources, allocate_workers
from carvana_ray.stages.guard import Result
from carvana_ray.stages.session import joins_cluster, log_resources, session

log = logging.getLogger(__name__)

# Seconds for the input check before Ray starts; it finds most errors by then. Ray takes several
# seconds to start, and so does listing 100,000 images. With CUDA the import of torch alone takes
# longer than this, so Ray starts at once.
PRECHECK_WAIT_S = 0.0 if os.path.exists("/dev/nvidiactl") else 2.0


class Stage(Protocol):
    """The module of a stage."""

    def check(self, flags: Any, /) -> Any:
        """Return what `run` needs to know; raise `InputError` if the input is invalid."""

    def run(self, flags: Any, cluster: ClusterResources, checked: Any, /) -> Result:
        """Do the work; return the job's result."""


def run_in_session(flags: config.RayFlags, load: Callable[[], Stage]) -> Result:
    """Check the input, open a Ray session and run a stage; return the job's result.

    The input is checked in the background while a local Ray starts. When the job joins a cluster,
    the check runs afterwards: with several nodes a local path is an error of its own.

    Args:
        flags: of the job.
        load: imports the stage. The import of torch takes seconds, so it runs while Ray starts.
    """
    checking = None
    if not joins_cluster():
        checking = run_in_background(partial(_check, flags, load, local=True))
        wait([checking], PRECHECK_WAIT_S)
        if checking.done():
            checking.result()  # raises an error before Ray starts
    with session(flags.num_cpus, flags.verbose) as cluster:
        log.debug("Ray is up")
        require_shared_paths(flags, cluster)
        stage, checked, machine = (
            checking.result() if checking else _check(flags, load, local=False)
        )
        if machine and machine.gpus < cluster.gpus:  # torch cannot use a GPU
            cluster = machine
        log.debug("input checked")
        log_resources(cluster)
        return stage.run(flags, cluster, checked)


def _check(
    flags: config.RayFlags, load: Callable[[], Stage], local: bool
) -> tuple[Stage, Any, ClusterResources | None]:
    """Import and check a stage; with `local` also that its workers fit this machine.

    Returns:
        The stage, the result of its `check`, and this machine's resources if they were checked.
    """
    stage, machine = load(), None
    if local and isinstance(flags, config.ModelFlags):
        machine = local_resources(flags.num_cpus)
        allocate_workers(flags, machine)
    return stage, stage.check(flags), machine


def require_shared_paths(flags: config.RayFlags, cluster: ClusterResources) -> None:
    """Raise `InputError` for a local path that other nodes of the cluster cannot see."""
    if (cluster.nodes == 1 and not cluster.autoscaler_max) or flags.shared_filesystem:
        return
    for name in ("data", "pictures", "out", "model", "init_from", "corrections"):
        value = getattr(flags, name, "")
        for uri in value if isinstance(value, tuple) else (value,):
            if uri and uri != config.STARTER and not storage.is_remote(uri):
                raise InputError(
                    f"{cli.flag(name)} {uri}: a local path, which the other nodes of this "
                    "cluster cannot see; use s3://bucket/key, or --shared-filesystem if all "
                    "nodes have that folder"
                )
