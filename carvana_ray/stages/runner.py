"""What every job does around its stage: flags, log, session, exit code, one line of JSON."""

import errno
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import partial
from types import FrameType
from typing import Any, Protocol, TypeVar

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    WorkerCrashedError,
)

from carvana_ray import config, errors, storage
from carvana_ray.config import cli
from carvana_ray.errors import IncompleteError, InputError, StorageUnavailableError, first_line
from carvana_ray.runtime import progress
from carvana_ray.runtime.background import run_in_background
from carvana_ray.runtime.resources import ClusterResources, allocate_workers
from carvana_ray.stages.session import joins_cluster, local_resources, log_resources, session

log = logging.getLogger(__name__)

USER_ERRORS = (
    InputError,
    IncompleteError,
    StorageUnavailableError,
)  # said in one line, without a traceback
PROCESS_LOST = (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    WorkerCrashedError,
)
DEFAULT_LOG_FLAGS = config.LogFlags()

C = TypeVar("C", bound=config.RayFlags)
P = TypeVar("P")
C_contra = TypeVar("C_contra", bound=config.RayFlags, contravariant=True)
Result = dict[str, Any]


class Stage(Protocol[C_contra, P]):
    """A module of a stage: what it checks before a Ray is started, and what it does."""

    def check(self, flags: C_contra, /) -> P:
        """Return what `run` shall know. Raises `InputError` for input that cannot be."""

    def run(self, flags: C_contra, cluster: ClusterResources, found: P, /) -> Result:
        """Do the work; return the job's result."""


# Seconds in which most of what can be wrong with the input is known; a Ray takes several to start,
# and a catalogue of 100,000 pictures to list. With CUDA to import torch alone takes longer.
PRECHECK_WAIT_S = 0.0 if os.path.exists("/dev/nvidiactl") else 2.0


class _Stopped(KeyboardInterrupt):
    """SIGTERM, as `ray job stop` and a cluster manager send it."""


def run(
    job: str,
    kind: type[C],
    load: Callable[[], Stage[C, P]],
    argv: Sequence[str] | None,
    epilog: str,
) -> int:
    """Parse flags, check the input, open a Ray session, run one stage, print its result.

    Args:
        job: its name.
        kind: its configuration.
        load: imports the stage. To import torch and the rest takes seconds; so it is done after the
            flags are read, and beside the start of Ray.
        argv, epilog: of the command line.

    Returns:
        The exit code.
    """
    flags = cli.parse(kind, job, argv, epilog)
    return run_guarded(job, partial(_in_session, flags, load), flags=flags)


def _in_session(flags: C, load: "Callable[[], Stage[C, P]]") -> Result:
    """Check the input, open a session, run the stage.

    What is wrong with the input is mostly known before a Ray is started, which takes longer than to
    say it. On a cluster it is asked after that is joined: with several nodes another thing is wrong
    with a path that is local.
    """

    def checked() -> tuple[Stage[C, P], P, ClusterResources | None]:
        stage, here = load(), None
        if not joined and isinstance(flags, config.ModelFlags):
            here = local_resources(flags.num_cpus)
            allocate_workers(flags, here)
        return stage, stage.check(flags), here

    joined = joins_cluster()
    checking = None if joined else run_in_background(checked)
    if checking:
        wait([checking], PRECHECK_WAIT_S)
        if checking.done():
            checking.result()
    with session(flags.num_cpus, flags.verbose) as cluster:
        log.debug("Ray is up")
        signal.signal(signal.SIGTERM, _stop)  # after ray.init, which sets its own
        require_shared_paths(flags, cluster)
        stage, found, here = checking.result() if checking else checked()
        if here and here.gpus < cluster.gpus:  # there is a GPU, but torch cannot use it
            cluster = here
        log.debug("input checked")
        log_resources(cluster)
        return stage.run(flags, cluster, found)


def require_shared_paths(flags: config.RayFlags, cluster: ClusterResources) -> None:
    """Raise `InputError` if other nodes cannot find what a local path names."""
    if (cluster.nodes == 1 and not cluster.autoscaler_max) or flags.shared_filesystem:
        return
    for name in ("data", "pictures", "out", "model", "init_from"):
        value = getattr(flags, name, "")
        for uri in value if isinstance(value, tuple) else (value,):
            if uri and not storage.is_remote(uri):
                raise InputError(
                    f"{cli.flag(name)} {uri}: a local path, which the other nodes of this "
                    "cluster do not have; use s3://bucket/key, or --shared-filesystem if all of "
                    "them have that folder"
                )


class _Stderr(logging.Handler):
    """Writes to what is stderr at that moment: while a live line is shown, that is above it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _configure_logging(flags: config.LogFlags) -> None:
    """Show as much of the log as is asked for, on stderr; without the progress where it is not."""
    level = logging.WARNING if flags.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", handlers=[_Stderr()])
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where credentials are
    if flags.verbose:
        logging.getLogger("carvana_ray").setLevel(logging.DEBUG)
    progress.show(not flags.quiet)


def run_guarded(
    job: str,
    work: Callable[[], Result],
    failed: Callable[[Result], bool] = lambda _: False,
    flags: config.LogFlags = DEFAULT_LOG_FLAGS,
) -> int:
    """Run a piece of work and print its result as the last line of stdout; return the exit code.

    What a user can mend is said in one line, without traceback.

    Args:
        job: its name.
        work: returns the result.
        failed: whether a result means exit code 1.
        flags: how much it says.
    """
    _configure_logging(flags)
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = work()
        code = errors.EXIT_FAILURE if failed(result) else errors.EXIT_OK
    except errors.BadImagesError as error:
        print(f"{job}: {error}", file=sys.stderr)
        result, code = error.result, errors.EXIT_BAD_IMAGES
    except KeyboardInterrupt:
        print(f"{job}: stopped; the same command again goes on from here", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # No shutdown of Ray: a thread may still wait in it (`beside`), and Ray then ends
        # the process itself, now and then, with 1. What a local session started dies with it.
        os._exit(errors.EXIT_INTERRUPTED)
    except Exception as error:
        return _print_error(job, error, flags.verbose)
    print(json.dumps({"job": job, **result}), flush=True)
    return code


def _print_error(job: str, error: Exception, verbose: bool) -> int:
    """Print an error, its cause in the last line; return the exit code.

    A traceback is for those who mend this program: it is shown of what nobody has foreseen.
    """
    cause = _root_cause(error)
    known = isinstance(cause, USER_ERRORS)
    text = str(cause) if known else f"{type(cause).__name__}: {first_line(cause)}"
    if not known and (advice := _machine_hint(cause)):
        known, text = True, f"{text}; {advice}; --verbose tells more"
    if verbose or not known:
        traceback.print_exception(error)
    print(f"{job}: error: {text}", file=sys.stderr)
    return errors.EXIT_USAGE if isinstance(cause, InputError) else errors.EXIT_FAILURE


def _machine_hint(cause: BaseException) -> str:
    """Return what to do about an error whose traceback says nothing; empty for all others."""
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return "out of memory: use fewer --workers, a smaller --batch-size or a larger machine"
    if isinstance(cause, OutOfDiskError | ObjectStoreFullError):
        return "free disk space where Ray keeps its files"
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free disk space, then run the same command again"
    if isinstance(cause, PROCESS_LOST) and not getattr(cause, "actor_init_failed", False):
        return "a process or a machine was lost; the same command again goes on from here"
    return ""


def _root_cause(error: BaseException) -> BaseException:
    """Return what began it: Ray wraps an error of a worker several times."""
    for failure in getattr(error, "worker_failures", {}).values():  # of Ray Train
        return _root_cause(failure)
    inner = getattr(error, "cause", None)  # of Ray's, which is of the inner one's class as well
    if not isinstance(inner, BaseException) and not isinstance(error, USER_ERRORS):
        inner = error.__cause__
    return _root_cause(inner) if isinstance(inner, BaseException) else error


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped
