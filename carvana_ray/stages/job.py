"""What every job does around its stage: flags, log, session, exit code, one line of JSON."""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from types import FrameType
from typing import Any, TypeVar

from carvana_ray import config, errors, storage
from carvana_ray.errors import InputError, Unfinished, Unreachable, first_line
from carvana_ray.resources import Cluster, share_out
from carvana_ray.stages.beside import beside
from carvana_ray.stages.session import foresee, joins, session, tell

KNOWN = InputError, Unfinished, Unreachable  # said in one line, without a traceback

C = TypeVar("C", bound=config.Session)
P = TypeVar("P")
Result = dict[str, Any]

# Seconds in which most of what can be wrong with the input is known; a Ray takes several to start,
# and a catalogue of 100,000 pictures to list.
PATIENCE = 2.0


class _Stopped(KeyboardInterrupt):
    """SIGTERM, as `ray job stop` and a cluster manager send it."""


def run(
    job: str,
    kind: type[C],
    stage: Callable[[C, Cluster, P], Result],
    check: Callable[[C], P],
    argv: Sequence[str] | None,
    epilog: str,
) -> int:
    """Parse flags, check the input, open a Ray session, run one stage, print its result.

    Args:
        job: its name.
        kind: its configuration.
        stage: does the work, with what `check` has found.
        check: raises `InputError` for input that cannot be. Called before a Ray is started, which
            takes longer than to say what is wrong, and beside it where the answer takes long; but
            after one is joined: with several nodes another thing is wrong with a path that is
            local.
        argv, epilog: of the command line.

    Returns:
        The exit code.
    """
    flags = config.parse(kind, job, argv, epilog)

    def in_session() -> Result:
        checking = None
        if not joins():
            if isinstance(flags, config.Network):
                share_out(flags, foresee(flags.num_cpus))
            checking = beside(lambda: check(flags))
            wait([checking], PATIENCE)
            if checking.done():
                checking.result()
        with session(flags.num_cpus) as cluster:
            signal.signal(signal.SIGTERM, _stop)  # after ray.init, which sets its own
            everywhere(flags, cluster)
            found = checking.result() if checking else check(flags)
            tell(cluster)
            return stage(flags, cluster, found)

    return finish(job, in_session)


def everywhere(flags: config.Session, cluster: Cluster) -> None:
    """Raise `InputError` if other nodes cannot find what a local path names."""
    if (cluster.nodes == 1 and not cluster.may_have) or flags.shared_filesystem:
        return
    for name in ("data", "pictures", "out", "model"):
        value = getattr(flags, name, "")
        for uri in value if isinstance(value, tuple) else (value,):
            if uri and not storage.is_remote(uri):
                raise InputError(
                    f"--{name} {uri}: a local path, which the other nodes of this cluster do not "
                    "have; use s3://bucket/key, or --shared-filesystem if all of them have that "
                    "folder"
                )


def finish(
    job: str, work: Callable[[], Result], failed: Callable[[Result], bool] = lambda _: False
) -> int:
    """Run a piece of work and print its result as the last line of stdout; return the exit code.

    What a user can mend is said in one line, without traceback.

    Args:
        job: its name.
        work: returns the result.
        failed: whether a result means exit code 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where credentials are
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = work()
        code = errors.EXIT_UNFORESEEN if failed(result) else errors.EXIT_DONE
    except errors.Quarantined as error:
        print(f"{job}: {error}", file=sys.stderr)
        result, code = error.result, errors.EXIT_QUARANTINE
    except KeyboardInterrupt:
        print(f"{job}: stopped; the same command again goes on from here", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # No shutdown of Ray: a thread may still wait in it (`beside`), and Ray then ends
        # the process itself, now and then, with 1. What a local session started dies with it.
        os._exit(errors.EXIT_STOPPED)
    except Exception as error:
        return _say(job, error)
    print(json.dumps({"job": job, **result}), flush=True)
    return code


def _say(job: str, error: Exception) -> int:
    """Print an error, its cause in the last line; return the exit code."""
    cause = _cause(error)
    known = isinstance(cause, KNOWN)
    if not known:
        traceback.print_exception(error)
    text = str(cause) if known else f"{type(cause).__name__}: {first_line(cause)}"
    print(f"{job}: error: {text}", file=sys.stderr)
    return errors.EXIT_INPUT if isinstance(cause, InputError) else errors.EXIT_UNFORESEEN


def _cause(error: BaseException) -> BaseException:
    """Return what began it: Ray wraps an error of a worker several times."""
    for failure in getattr(error, "worker_failures", {}).values():  # of Ray Train
        return _cause(failure)
    inner = getattr(error, "cause", None)  # of Ray's, which is of the inner one's class as well
    if not isinstance(inner, BaseException) and not isinstance(error, KNOWN):
        inner = error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else error


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped
