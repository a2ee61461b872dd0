"""Work in a background thread; the main thread stays free for signals."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_background(work: Callable[[], T]) -> "Future[T]":
    """Run a function in a daemon thread; return the future of its result or error.

    An executor's threads would block the exit of the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised by future.result()
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
