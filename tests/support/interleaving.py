"""Functions that run at once, one call of storage at a time, in an order drawn by a seed."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from carvana_ray import storage
from carvana_ray.storage import FileInfo

CALLS = "exists", "state", "list_files", "list_all", "read", "write_atomic", "remove"
AT_ONCE = 1, 5  # calls on average that a thread makes before another one runs


def before_each_call(monkeypatch: pytest.MonkeyPatch, hook: Callable[[], None]) -> None:
    """Call a function before each read, write and look of the code under test."""
    read = storage.read

    def hooked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            hook()
            return function(*values, **named)

        return call

    def read_many(
        uris: Sequence[str],
        at_most: int | None = None,
        expected: Sequence[FileInfo] | None = None,
    ) -> Iterator[bytes | Exception]:
        """As on disk, also for S3: one file after the other, when it is needed."""
        for uri, entry in zip(uris, expected or [None] * len(uris), strict=True):
            hook()
            try:
                yield read(uri, at_most, entry)
            except (ValueError, OSError) as error:
                yield error

    for name in CALLS:
        monkeypatch.setattr(storage, name, hooked(getattr(storage, name)))
    monkeypatch.setattr(storage, "read_many", read_many)


def interleave(
    seed: int, monkeypatch: pytest.MonkeyPatch, **functions: Callable[[], None]
) -> list[str]:
    """Run functions at once to their end; return their names in the order in which they ended."""
    rng, turn = random.Random(seed), threading.Condition()
    at_once = rng.choice(AT_ONCE)
    alive, ended, errors = list(functions), list[str](), list[BaseException]()
    running = rng.choice(alive)

    def next_turn() -> None:
        nonlocal running
        if running not in alive or rng.random() < 1 / at_once:
            running = rng.choice(alive or [""])
        turn.notify_all()

    def pause() -> None:
        if (name := threading.current_thread().name) in alive:
            with turn:
                next_turn()
                assert turn.wait_for(lambda: running == name, 60)

    def run(name: str) -> None:
        with turn:
            assert turn.wait_for(lambda: running == name, 60)
        try:
            functions[name]()
        except BaseException as error:
            errors.append(error)
        with turn:
            ended.append(name)
            alive.remove(name)
            next_turn()

    with monkeypatch.context() as patches:
        before_each_call(patches, pause)
        threads = [threading.Thread(target=run, args=(name,), name=name) for name in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for error in errors:
        raise error
    return ended
