"""A small actor between the driver of a training and its workers: where the pictures are, how far
the workers are."""

import asyncio
import contextlib
import threading
import time
from types import TracebackType
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from carvana_ray.runtime.progress import ProgressMeter

TELL_EVERY_S = 0.5


class ProgressActor:
    """Holds the decoded pictures' references, and how many have been trained on; a Ray actor."""

    def __init__(self) -> None:
        self._done = 0
        self._chunks: list[Any] = []
        self._decoded = asyncio.Event()

    async def tell(self, done: int) -> None:
        """Set the number."""
        self._done = done

    async def ask(self) -> int:
        """Return the number."""
        return self._done

    async def put(self, chunks: list[Any]) -> None:
        """Take the references of `feed.decode`."""
        self._chunks = chunks
        self._decoded.set()

    async def chunks(self) -> list[Any]:
        """Return the references, once they are there."""
        await self._decoded.wait()
        return self._chunks


def board() -> Any:
    """Start a board beside the driver, with which it lives and dies; return the actor's handle."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(ProgressActor)
    return actor.remote()


class ProgressSender:
    """Called after each step by one worker; tells the board now and then, and never waits."""

    def __init__(self, board: Any) -> None:
        self._board, self._told = board, 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._board is not None and now - self._told >= TELL_EVERY_S:
            self._told = now
            self._board.tell.remote(done)


class ProgressPoller:
    """Shows on a meter what the board says, for as long as the block runs."""

    def __init__(self, meter: ProgressMeter, board: Any) -> None:
        self._meter, self._board = meter, board
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            with contextlib.suppress(ray.exceptions.RayError):  # it may answer the next time
                done = ray.get(self._board.ask.remote())
                self._meter.set(max(self._meter.done, done))
