"""What every job does around its stage: flags, log, session, exit code, one line of JSON."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

from carvana_ray import config, errors
from carvana_ray.resources import Cluster, share_out
from carvana_ray.stages.session import foresee, joins, session

C = TypeVar("C", bound=config.Session)
Result = dict[str, Any]


class _Stopped(KeyboardInterrupt):
    """SIGTERM, as `ray job stop` and a cluster manager send it."""


def run(
    job: str,
    kind: type[C],
    stage: Callable[[C, Cluster], Result],
    check: Callable[[C], object],
    argv: Sequence[str] | None,
    epilog: str,
) -> int:
    """Parse flags, check the input, open a Ray session, run one stage, print its result.

    Args:
        job: its name.
        kind: its configuration.
        stage: does the work.
        check: raises `InputError` for input that cannot be; called before Ray is started, which
            takes longer than to say what is wrong.
        argv, epilog: of the command line.

    Returns:
        The exit code.
    """
    flags = config.parse(kind, job, argv, epilog)

    def in_session() -> Result:
        num_cpus = flags.num_cpus
        if isinstance(flags, config.Network) and not joins():
            share_out(flags, foresee(num_cpus))
        check(flags)
        with session(num_cpus) as cluster:
            signal.signal(signal.SIGTERM, _stop)  # after ray.init, which sets its own
            return stage(flags, cluster)

    return finish(job, in_session)


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
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = work()
        code = errors.EXIT_UNFORESEEN if failed(result) else errors.EXIT_DONE
    except errors.InputError as error:
        print(f"{job}: error: {error}", file=sys.stderr)
        return errors.EXIT_INPUT
    except errors.Unfinished as error:
        print(f"{job}: error: {error}", file=sys.stderr)
        return errors.EXIT_UNFORESEEN
    except errors.Quarantined as error:
        print(f"{job}: {error}", file=sys.stderr)
        result, code = error.result, errors.EXIT_QUARANTINE
    except KeyboardInterrupt:
        print(f"{job}: stopped; the same command again goes on from here", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # No shutdown of Ray: a thread may still wait in it (`train._in_thread`), and Ray then ends
        # the process itself, now and then, with 1. What a local session started dies with it.
        os._exit(errors.EXIT_STOPPED)
    print(json.dumps({"job": job, **result}), flush=True)
    return code


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped
