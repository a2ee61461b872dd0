"""SIGTERM and Ctrl-C end a job with exit code 75 and one line, whatever it is doing.

A signal raises `KeyboardInterrupt` in the main thread, which lets blocks end in order. That alone
is not sure to end the process: a library may swallow the exception, and Python raises it only when
the main thread returns from native code. So a thread waits for signals too, and ends the process
after `GRACE_S`.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from carvana_ray.errors import EXIT_INTERRUPTED

GRACE_S = 2.0  # until the process ends, whether or not its blocks have ended
STOPPING = (signal.SIGTERM, signal.SIGINT)  # SIGTERM is what `ray job stop` and clusters send

_asked = False  # a signal came; no threading.Event, because a handler must not take a lock


@contextlib.contextmanager
def stoppable(job: str) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the process in the block; call `close` before it ends itself.

    A second signal ends the process at once. An ignored SIGINT stays ignored: shells start
    background jobs so.
    """
    line = f"{job}: stopped; run the same command again to continue\n".encode()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, line), daemon=True).start()
    sys.unraisablehook = _report_unraisable
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _end(line)


def close() -> None:
    """Ignore further signals, because the job is about to print its result.

    Raises:
        KeyboardInterrupt: a signal came before, and the exception that it raised was swallowed.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if _asked:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _asked
    if not _asked:  # `_watch` ends the process at the second signal
        _asked = True
        raise KeyboardInterrupt


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print what Python swallows, such as an error in `__del__`, but no `KeyboardInterrupt`."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _watch(reader: int, line: bytes) -> None:
    """Read the numbers of signals, which Python's handler writes even during native code."""
    while os.read(reader, 1)[0] not in STOPPING:
        pass
    select.select([reader], [], [], GRACE_S)  # until the time is over, or until another signal
    _end(line)


def _end(line: bytes) -> NoReturn:
    # Without a shutdown of Ray: a background thread may still wait in Ray, which then sometimes
    # ends the process itself, with code 1. A local session dies with the process.
    with contextlib.suppress(OSError):
        os.write(2, line)
    os._exit(EXIT_INTERRUPTED)
