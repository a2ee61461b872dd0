"""How far a job is: a bar on a terminal, plain lines in a log. Goes to stderr."""

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
STEADY_AFTER_S = 1.0


class Meter:
    """One piece of work of a known number of pictures, as a context.

    The rate is that since the first report, so that the start of processes does not count; of work
    that is over within a second of it, the rate since the start.

    Args:
        what: a word or two for what runs.
        total: pictures.
        already: of these, done before.
        stream: where to show it.
        clock: seconds, monotonic.
        tell: called with the rate whenever it changes, and with 0 at the end.
    """

    def __init__(
        self,
        what: str,
        total: int,
        already: int = 0,
        stream: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[float], None] = lambda rate: None,
    ) -> None:
        self.what, self.total, self.done = what, total, already
        self._stream, self._clock, self._tell = stream, clock, tell
        self._start = (clock(), already)
        self._first: tuple[float, int] | None = None
        self._rate = 0.0
        self._steady = False
        self._said = self._start[0]
        self._bar: Progress | None = None

    @property
    def rate(self) -> float:
        """Pictures a second; 0 before the first report."""
        return self._rate

    def __enter__(self) -> "Meter":
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.1f} pictures/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.what, total=self.total, completed=self.done, rate=0.0
            )
        else:
            self._say(f"{self.what}: {self.total} pictures" + self._resumed())
        return self

    def __exit__(self, *_: object) -> None:
        log.debug("%s: %d of %d", self.what, self.done, self.total)
        self._tell(0.0)
        if self._bar:
            self._bar.stop()
        else:
            self._say(f"{self.what}: {self.done} of {self.total}, {self._rate:.1f} pictures/s")

    def set(self, done: int) -> None:
        """Say how many pictures are done, those done before included."""
        now = self._clock()
        if done > self.done:
            if self._first is None:
                self._first = (now, done)
                log.debug("%s: first %d", self.what, done)
            self._steady = now - self._first[0] >= STEADY_AFTER_S
            since = self._first if self._steady else self._start
            self._rate = (done - since[1]) / max(now - since[0], 1e-9)
            self._tell(self._rate)
        self.done = done
        if self._bar:
            self._bar.update(self._task, completed=done, rate=self._rate)
        elif now - self._said >= LINE_EVERY_S:
            self._said = now
            self._say(self._line(done))

    def end(self, rate: float) -> None:
        """Say that all is done, at a rate that somebody closer to the work has measured."""
        self.done, self._rate = self.total, rate
        if self._bar:
            self._bar.update(self._task, completed=self.done, rate=rate)

    def _line(self, done: int) -> str:
        if not self._rate:
            return f"{self.what}: starting"
        line = f"{self.what}: {done} of {self.total}, {self._rate:.1f} pictures/s"
        left = int((self.total - done) / self._rate)
        return f"{line}, {left // 60}:{left % 60:02d} left" if left and self._steady else line

    def _resumed(self) -> str:
        return f", {self.done} done before" if self.done else ""

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Laps:
    """Seconds of the steps of a job, one after the other.

    Args:
        clock: seconds, monotonic.

    Attributes:
        seconds: of each step that has ended, in order.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self.seconds: dict[str, float] = {}

    def end(self, step: str) -> None:
        """Say that a step ends now."""
        now = self._clock()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 2)
        self._last = now
