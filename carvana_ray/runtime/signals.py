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
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from carvana_ray.errors import EXIT_INTERRUPTED

GRACE_S = 2.0  # until the process ends, whether or not its blocks have ended
STOPPING = (signal.SIGTERM, signal.SIGINT)  # SIGTERM is what `ray job stop` and clusters send

NOTE_WAIT_S = 0.5  # for the note, which may ask a store that does not answer
RUN_AGAIN = "run the same command again"

_asked = False  # a signal came; no threading.Event, because a handler must not take a lock
_stderr = 2  # of the start: see `stderr_filter`, which replaces it for a moment
_note: Callable[[], str] = lambda: RUN_AGAIN  # noqa: E731


def set_stop_note(note: Callable[[], str]) -> None:
    """Set what is said when the job is stopped from now on: what is kept and what is lost."""
    global _note
    _note = note


@contextlib.contextmanager
def stoppable(job: str) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the process in the block; call `close` before it ends itself.

    A second signal ends the process at once. An ignored SIGINT stays ignored: shells start
    background jobs so.
    """
    global _stderr
    _stderr = os.dup(2)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, job), daemon=True).start()
    sys.unraisablehook = _report_unraisable
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _end(job)


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


def _watch(reader: int, job: str) -> None:
    """Read the numbers of signals, which Python's handler writes even during native code."""
    while os.read(reader, 1)[0] not in STOPPING:
        pass
    select.select([reader], [], [], GRACE_S)  # until the time is over, or until another signal
    _end(job)


def _end(job: str) -> NoReturn:
    # Without a shutdown of Ray: a background thread may still wait in Ray, which then sometimes
    # ends the process itself, with code 1. A local session dies with the process.
    with contextlib.suppress(OSError):
        os.write(_stderr, f"{job}: stopped; {_read_note()}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _read_note() -> str:
    """Return the note; the general one if it fails or takes too long."""
    notes = [RUN_AGAIN]

    def read() -> None:
        with contextlib.suppress(Exception):
            notes.append(_note())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(NOTE_WAIT_S)
    return notes[-1]
