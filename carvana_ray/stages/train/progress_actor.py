"""A small actor that connects the driver of a training run with its workers.

The driver hands the decoded chunks to the workers through it, and the workers report progress.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from carvana_ray.runtime.progress import ProgressMeter

log = logging.getLogger(__name__)

SEND_EVERY_S = 0.5
POLL_EVERY_S = 1.0


class ProgressActor:
    """Ray actor that holds the decoded chunks, the number of images trained on, and a note."""

    def __init__(self) -> None:
        self._done = 0
        self._note = ""
        self._chunks: list[Any] = []
        self._decoded = asyncio.Event()

    async def set_done(self, done: int) -> None:
        """Set the number of images trained on."""
        self._done = done

    async def get_done(self) -> int:
        """Return the number of images trained on."""
        return self._done

    async def set_note(self, note: str) -> None:
        """Set a line of text for the driver's log."""
        self._note = note

    async def get_note(self) -> str:
        """Return the line of text; empty if none is set."""
        return self._note

    async def set_chunks(self, chunks: list[Any]) -> None:
        """Set the references of the chunks, as `dataset.decode_pairs` returns them."""
        self._chunks = chunks
        self._decoded.set()

    async def get_chunks(self) -> list[Any]:
        """Return the references of the chunks; wait until they are set."""
        await self._decoded.wait()
        return self._chunks


def start_progress_actor() -> Any:
    """Start the actor on the driver's node and return its handle; it ends with the driver."""
    node: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, scheduling_strategy=node)(ProgressActor)
    return actor.remote()


def progress_sender(actor: Any) -> Callable[[int], None]:
    """Return a function that sends a number of images at intervals, and never waits."""
    sent = 0.0

    def send(done: int) -> None:
        nonlocal sent
        now = time.monotonic()
        if now - sent >= SEND_EVERY_S:
            sent = now
            actor.set_done.remote(done)

    return send


@contextlib.contextmanager
def poll_progress(actor: Any, meter: ProgressMeter) -> Iterator[None]:
    """Show the actor's number of images on a meter, and log its note, while the block runs."""
    stop = threading.Event()

    def poll() -> None:
        logged = ""
        while not stop.wait(POLL_EVERY_S):
            with contextlib.suppress(ray.exceptions.RayError):  # the next poll may succeed
                done, note = ray.get([actor.get_done.remote(), actor.get_note.remote()])
                meter.set(max(meter.done, done))
                if note != logged:
                    log.info("train: %s", note)
                    logged = note

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
