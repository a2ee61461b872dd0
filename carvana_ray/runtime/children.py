"""A few child processes for work that may crash its process: here, the decoding of images.

A child imports what its work needs and nothing else, so it is ready while this process still
imports torch. It has one task at a time. If it dies, the task's future says so, and the next task
gets a new child.

    this process                          child
    thread of a pool  -- (work, item) -->  result = work(item)
                      <-- (result, None)   or (None, error)
"""

import contextlib
import importlib
import json
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from carvana_ray.errors import IncompleteError

T = TypeVar("T")
R = TypeVar("R")

STOPPING = (signal.SIGTERM, signal.SIGINT)
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from carvana_ray.runtime.children import serve
serve(int(sys.argv[1]), sys.argv[3:])
"""


class ChildDiedError(Exception):
    """Raised if a child process dies of its task.

    Attributes:
        killed: by SIGKILL, as the kernel does when the machine is short of memory.
    """

    def __init__(self, code: int) -> None:
        cause = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        super().__init__(f"a process that works on images died ({cause})")
        self.killed = code == -signal.SIGKILL


class Children:
    """Child processes, and a thread for each, as a context manager that ends them.

    Args:
        count: number of processes.
        modules: that each imports when it starts.
        verbose: show what they print to stderr.
    """

    def __init__(self, count: int, modules: Sequence[str] = (), verbose: bool = False) -> None:
        self.count = count
        self._modules, self._verbose = modules, verbose
        self._own = threading.local()
        self._alive: set[_Child] = set()
        self._ended = False
        self._threads = ThreadPoolExecutor(count, initializer=_leave_signals_to_the_main_thread)

    def __enter__(self) -> "Children":
        for _ in range(self.count):
            self._threads.submit(self._child)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._alive):
            child.kill()

    def submit(self, work: Callable[[T], R], item: T) -> "Future[R]":
        """Start ``work(item)`` in a child; both must be picklable.

        Returns:
            The future of its result or error. The error is `ChildDiedError` if the child dies.
        """
        return self._threads.submit(self._call, work, item)

    def _call(self, work: Callable[[T], R], item: T) -> R:
        child = self._child()
        try:
            return child.call(work, item)
        except ChildDiedError:
            self._alive.discard(child)
            self._own.child = None
            raise

    def _child(self) -> "_Child":
        """Return the child of this thread. The first call, and one after its death, starts it."""
        child: _Child | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = _Child(self._modules, self._verbose)
            self._alive.add(child)
            if self._ended:  # while it started
                child.kill()
        return child


class _Child:
    """One child process."""

    def __init__(self, modules: Sequence[str], verbose: bool) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(number), json.dumps(sys.path), *modules],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if verbose else subprocess.DEVNULL,
            )
        self._ready = False

    def call(self, work: Callable[[T], R], item: T) -> R:
        """Return the result of ``work(item)``, or raise its error."""
        if not self._ready:
            try:
                self._connection.recv()
            except EOFError:
                raise IncompleteError(
                    "a process to read images did not start; --verbose shows why"
                ) from None
            self._ready = True
        try:
            self._connection.send((work, item))
            result, error = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise ChildDiedError(self._process.wait()) from None
        if error is not None:
            raise error
        return result

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def serve(number: int, modules: Sequence[str]) -> None:
    """Import modules, then work until the connection ends, as it does when the parent dies.

    Args:
        number: the connection's file descriptor.
        modules: names of the modules.
    """
    for module in modules:
        importlib.import_module(module)
    connection: Connection[Any, Any] = Connection(number)
    connection.send(None)  # ready
    while True:
        try:
            task = connection.recv_bytes()
        except EOFError:
            return
        try:
            work, item = pickle.loads(task)
            answer = pickle.dumps((work(item), None))
        except Exception as error:
            answer = _answer_with(error)
        with contextlib.suppress(BrokenPipeError):  # the parent is dead
            connection.send_bytes(answer)


def _answer_with(error: Exception) -> bytes:
    """Return an error for the parent, or its text if the error does not survive the journey."""
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)
        return answer
    except Exception:
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _leave_signals_to_the_main_thread() -> None:
    """Block signals in this thread and in the children that it starts.

    Ctrl-C reaches all processes of a terminal. Only this process should answer it; its end is the
    end of its children.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
