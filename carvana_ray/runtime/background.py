"""Work beside the main thread, which stays free for signals."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_background(work: Callable[[], T]) -> "Future[T]":
    """Run a piece of work in a thread of its own; its result, or error, is the future's.

    Not an executor's: the process must be able to end while the thread still waits for something.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whatever it is, it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
