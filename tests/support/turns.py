"""Runs several jobs in one process so that a seed decides which of them goes on, and how far.

Each job is a function in a thread of its own. It stops before each call of `carvana_ray.storage`;
only one job runs at a time, so a seed gives the same order of all calls again.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carvana_ray import storage

CALLS = (
    "exists",
    "list_files",
    "list_all",
    "read",
    "remove",
    "require_writable",
    "state",
    "write_atomic",
)
BURSTS = (1, 1, 2, 3, 5, 8, 20, 60)  # calls that a job makes before another one may go on
STUCK_S = 60


class Turns:
    """Gives turns to jobs.

    Attributes:
        running: number of the job that runs.
    """

    def __init__(self, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self._rng, self._own = rng, threading.local()
        self._go: list[threading.Semaphore] = []
        self._stopped = threading.Semaphore(0)
        self._ended: dict[int, Any] = {}
        self._publishing = False
        self.running = -1
        for name in CALLS:
            monkeypatch.setattr(storage, name, self._stopping(getattr(storage, name)))
        monkeypatch.setattr(storage, "atomic_writer", self._stopping_twice(storage.atomic_writer))

    def run(self, jobs: list[Callable[[], Any]], between: Callable[[], object]) -> list[Any]:
        """Run jobs to their ends; return the result of each, or what it raised.

        `between` is called whenever the turn goes to another job.
        """
        self._go = [threading.Semaphore(0) for _ in jobs]
        threads = [
            threading.Thread(target=self._job, args=item, daemon=True) for item in enumerate(jobs)
        ]
        for thread in threads:
            thread.start()
        while left := [number for number in range(len(jobs)) if number not in self._ended]:
            between()
            self.running = self._rng.choice(left)
            for _ in range(self._rng.choice(BURSTS)):
                self._go[self.running].release()
                assert self._stopped.acquire(timeout=STUCK_S), "a job hangs"
                # A job that is about to publish, or just has, is stopped more often.
                stop, self._publishing = self._publishing and self._rng.random() < 0.5, False
                if stop or self.running in self._ended:
                    break
        return [self._ended[number] for number in range(len(jobs))]

    def _job(self, number: int, job: Callable[[], Any]) -> None:
        self._go[number].acquire()
        self._own.number = number
        try:
            self._ended[number] = job()
        except Exception as error:
            self._ended[number] = error
        self._stopped.release()

    def _stop(self) -> None:
        """Wait for the next turn, in the thread of a job."""
        number = getattr(self._own, "number", None)
        if number is not None:  # else a thread of a job: it works while the job waits for it
            self._stopped.release()
            self._go[number].acquire()

    def _stopping(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stop_and_call(*args: Any, **options: Any) -> Any:
            self._stop()
            return call(*args, **options)

        return stop_and_call

    def _stopping_twice(self, writer: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def stop_and_write(*args: Any, **options: Any) -> Iterator[Any]:
            self._stop()
            with writer(*args, **options) as file:
                yield file
                self._publishing = True
                self._stop()
            self._publishing = True

        return stop_and_write
