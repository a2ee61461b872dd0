"""How far a job is: one live line on a terminal, plain lines in a log. Goes to stderr."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
STEADY_AFTER_S = 1.0
FORECAST_AFTER_S = 60.0  # of work; what is over within as long needs none

_shown = True


def show(shown: bool) -> None:
    """Say whether meters made from now on show anything (``--quiet``: no)."""
    global _shown
    _shown = shown


def format_duration(seconds: float) -> str:
    """Return a time as people say it: ``50 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class ProgressMeter:
    """One piece of work of a known number of pictures, as a context.

    The rate is that since the first report, so that the start of processes does not count; of work
    that is over within a second of it, the rate since the start.

    Args:
        what: a word or two for what runs.
        total: pictures.
        already: of these, done before.
        stream: where to show it; None: stderr, or nowhere, see `show`.
        clock: seconds, monotonic.
        tell: called with the rate whenever it changes, and with 0 at the end.
    """

    def __init__(
        self,
        what: str,
        total: int,
        already: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[float], None] = lambda rate: None,
    ) -> None:
        self.what, self.total, self.done = what, total, already
        self._stream = stream or (sys.stderr if _shown else None)
        self._clock, self._tell = clock, tell
        self._start = (clock(), already)
        self._first: tuple[float, int] | None = None
        self._rate = 0.0
        self._steady = self._foretold = False
        self._at = self._said = self._start[0]
        self._bar: Progress | None = None

    @property
    def rate(self) -> float:
        """Pictures a second; 0 before the first report."""
        return self._rate

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest will take by the rate so far; None while that is not steady."""
        if not (self._steady and self._rate):
            return None
        since = self._clock() - self._at
        return max((self.total - self.done) / self._rate - since, 0.0)

    def __enter__(self) -> "ProgressMeter":
        if self._stream and _is_terminal(self._stream):
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[rate]:.1f} pictures/s"),
                _Left(self),
                console=Console(file=self._stream),
                expand=True,  # the bar takes what the words leave: one line, however narrow
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
            self._at = now
            self._tell(self._rate)
        self.done = done
        if self._bar:
            self._bar.update(self._task, completed=done, rate=self._rate)
        if self._first and not self._foretold and now - self._first[0] >= FORECAST_AFTER_S:
            self._foretold = True
            self._foretell(now)
        if not self._bar and now - self._said >= LINE_EVERY_S:
            self._said = now
            self._say(self._line())

    def end(self, rate: float) -> None:
        """Say that all is done, at a rate that somebody closer to the work has measured."""
        self.done, self._rate = self.total, rate
        if self._bar:
            self._bar.update(self._task, completed=self.done, rate=rate)

    def _foretell(self, now: float) -> None:
        """Say once how long the rest will take."""
        left = self.seconds_left
        if left and left >= FORECAST_AFTER_S:
            self._said = now
            self._say(
                f"{self.what}: at {self._rate:.1f} pictures/s the other {self.total - self.done} "
                f"take about {format_duration(left)}"
            )

    def _line(self) -> str:
        if not self._rate:
            return f"{self.what}: starting"
        line = f"{self.what}: {self.done} of {self.total}, {self._rate:.1f} pictures/s"
        left = self.left()
        return f"{line}, {left}" if left else line

    def left(self) -> str:
        """Return the time left, as ``1:05 left``; empty where nothing is, or nobody knows."""
        left = int(self.seconds_left or 0)
        return f"{left // 60}:{left % 60:02d} left" if left else ""

    def _resumed(self) -> str:
        return f", {self.done} done before" if self.done else ""

    def _say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        elif self._stream:
            print(text, file=self._stream, flush=True)


class _Left(ProgressColumn):
    """The time left by a meter's own rate, which counts down between two reports."""

    def __init__(self, meter: ProgressMeter) -> None:
        super().__init__()
        self._meter = meter

    def render(self, task: Task) -> Text:
        return Text(self._meter.left())


def _is_terminal(stream: TextIO) -> bool:
    """Return whether a line can be written over there."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class StageTimer:
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
