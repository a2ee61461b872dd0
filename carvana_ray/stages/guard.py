"""The setup and the end of every job: log, one line of JSON, exit code."""

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from typing import Any

from carvana_ray import config, errors
from carvana_ray.errors import IncompleteError, InputError, StorageUnavailableError, first_line
from carvana_ray.runtime import progress, signals
from carvana_ray.runtime.wording import short_path

USER_ERRORS = (InputError, IncompleteError, StorageUnavailableError)  # one line, no traceback
Result = dict[str, Any]
PROGRAM = "carvana-ray"

log = logging.getLogger(__name__)


def run_guarded(job: str, flags: config.LogFlags, work: Callable[[], Result]) -> int:
    """Run a job's work, print its result as the last line of stdout and return the exit code.

    A result with ``"ok": False`` means exit code 1. When the work has ended, signals are ignored,
    so that the exit code is that of the result.
    """
    _configure_logging(flags)
    try:
        try:
            result = work()
        finally:
            signals.close()
        code = errors.EXIT_OK if result.get("ok", True) else errors.EXIT_FAILURE
    except errors.BadImagesError as error:
        print(f"{job}: {error}", file=sys.stderr)
        result, code = error.result, errors.EXIT_BAD_IMAGES
    except Exception as error:
        return print_error(job, error, flags.verbose)
    print(json.dumps({"job": job, **result}), flush=True)
    return code


def run_with_closing(job: str, flags: config.LogFlags, work: Callable[[], Result]) -> Result:
    """Run a job's work, log its closing lines and return its result; raises as the work does."""
    try:
        result = work()
    except errors.BadImagesError as error:
        _say_closing(job, flags, error.result)
        raise
    _say_closing(job, flags, result)
    return result


def _say_closing(job: str, flags: config.LogFlags, result: Result) -> None:
    from carvana_ray.stages.closing import Closing  # here, so that an early error needs no numpy

    with contextlib.suppress(OSError):  # of storage; the result counts
        for line in Closing(_program(), os.getcwd()).lines(job, flags, result):
            log.info("%s", line)


def _program() -> str:
    """Return the command as the user can type it, also where its folder is not on the PATH."""
    if shutil.which(PROGRAM):
        return PROGRAM
    python, here = sys.executable, os.getcwd()
    script = os.path.join(os.path.dirname(python), PROGRAM)
    if os.path.exists(script):
        return short_path(script, here)
    return f"{short_path(python, here)} -m carvana_ray"


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which a live progress line replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _configure_logging(flags: config.LogFlags) -> None:
    level = logging.WARNING if flags.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", handlers=[_StderrHandler()])
    logging.getLogger("botocore").setLevel(logging.WARNING)  # INFO names the credentials' source
    if flags.verbose:
        logging.getLogger("carvana_ray").setLevel(logging.DEBUG)
    progress.show(not flags.quiet)


def print_error(job: str, error: Exception, verbose: bool) -> int:
    """Print an error, its cause in the last line, and return the exit code.

    Expected errors have a traceback only if `verbose`.
    """
    cause = _root_cause(error)
    expected = isinstance(cause, USER_ERRORS)
    text = str(cause) if expected else f"{type(cause).__name__}: {first_line(cause)}"
    if not expected and (hint := _machine_hint(cause)):
        expected, text = True, f"{text}; {hint}; use --verbose for details"
    if verbose or not expected:
        traceback.print_exception(error)
    print(f"{job}: error: {text}", file=sys.stderr)
    return errors.EXIT_USAGE if isinstance(cause, InputError) else errors.EXIT_FAILURE


def _machine_hint(cause: BaseException) -> str:
    """Return the remedy for a fault of the machine, which no traceback explains; else ""."""
    from ray import exceptions  # here, because check and export run without Ray

    lost = (
        exceptions.LocalRayletDiedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
    )
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return "out of memory: use fewer --workers, a smaller --batch-size or a larger machine"
    if isinstance(cause, exceptions.OutOfDiskError | exceptions.ObjectStoreFullError):
        return "free disk space where Ray keeps its files"
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free disk space, then run the same command again"
    if isinstance(cause, lost) and not getattr(cause, "actor_init_failed", False):
        return "a process or a machine was lost; run the same command again to continue"
    return ""


def _root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain: Ray wraps an error of a worker several times."""
    for failure in getattr(error, "worker_failures", {}).values():  # by Ray Train
        return _root_cause(failure)
    inner = getattr(error, "cause", None)  # of Ray's errors, which also have the class of `cause`
    if not isinstance(inner, BaseException) and not isinstance(error, USER_ERRORS):
        inner = error.__cause__
    if type(inner).__name__ == "SystemException":  # a mark of Ray Data, which says nothing
        return error
    return _root_cause(inner) if isinstance(inner, BaseException) else error
