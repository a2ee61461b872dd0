"""The progress of a job: a live bar on a terminal, a line every ten seconds in a log (stderr)."""

import os
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
    TimeRemainingColumn,
)

from carvana_ray.runtime.wording import count_of, format_duration

LINE_EVERY_S = 10.0
STEADY_AFTER_S = 1.0
SPEED_PERIOD_S = 120.0  # of the bar's time left; images are reported by the block, not one by one

_shown = True


def show(shown: bool) -> None:
    """Enable or disable the output of meters created after this call."""
    global _shown
    _shown = shown


class ProgressMeter:
    """Counts and shows the images of one task, as a context manager.

    The rate, in images a second, counts from the first report on, which leaves the start of
    processes out. Until `STEADY_AFTER_S` after the first report it counts from the start.

    Args:
        task: one or two words.
        total: number of images, including `already`.
        already: images that an earlier run has done; they count as `done`.
        stream: where to show the progress; None for stderr, or nowhere after ``show(False)``.
        clock: monotonic seconds.
        on_rate: called with the rate when it changes, and with 0 at the end.
    """

    def __init__(
        self,
        task: str,
        total: int,
        already: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_rate: Callable[[float], None] = lambda rate: None,
    ) -> None:
        self.task, self.total, self.done, self.rate = task, total, already, 0.0
        self._stream = stream or (sys.stderr if _shown else None)
        self._clock, self._on_rate = clock, on_rate
        self._start = (clock(), already)
        self._first: tuple[float, int] | None = None
        self._printed_at = self._start[0]
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressMeter":
        if self._stream and is_terminal(self._stream):
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.1f} images/s"),
                TimeRemainingColumn(compact=True),
                console=Console(file=self._stream),
                get_time=self._clock,
                speed_estimate_period=SPEED_PERIOD_S,
                expand=True,  # the bar takes the rest of the width, so that one line is enough
            )
            self._bar.start()
            self._bar_task = self._bar.add_task(
                self.task, total=self.total, completed=self.done, rate=0.0
            )
        else:
            self._print(f"{self.task}: starting, {count_of(self.total, 'images', self.done)}")
        return self

    def __exit__(self, *_: object) -> None:
        self._on_rate(0.0)
        if self._bar:
            self._bar.stop()
        else:
            self._print(self._counts())

    def set(self, done: int) -> None:
        """Set the number of images that are done, including those of an earlier run."""
        now = self._clock()
        if done > self.done:
            self._first = self._first or (now, done)
            steady = now - self._first[0] >= STEADY_AFTER_S
            since, before = self._first if steady else self._start
            self.rate = (done - before) / max(now - since, 1e-9)
            self._on_rate(self.rate)
        self.done = done
        if self._bar:
            self._bar.update(self._bar_task, completed=done, rate=self.rate)
        elif self.rate and now - self._printed_at >= LINE_EVERY_S:
            self._printed_at = now
            left = format_duration(max(self.total - done, 0) / self.rate)
            self._print(f"{self._counts()}, {left} left")

    def end(self, rate: float) -> None:
        """Set all images as done, at a rate that was measured closer to the work."""
        self.done, self.rate = self.total, rate
        if self._bar:
            self._bar.update(self._bar_task, completed=self.done, rate=rate)

    def _counts(self) -> str:
        return f"{self.task}: {self.done} of {self.total}, {self.rate:.1f} images/s"

    def _print(self, text: str) -> None:
        if self._stream:
            print(text, file=self._stream, flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a line can be overwritten on a stream."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class StageTimer:
    """Measures the `seconds` of consecutive steps of a job, in order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self.seconds: dict[str, float] = {}

    def end(self, step: str) -> None:
        """End a step now; the next step begins."""
        now = self._clock()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 2)
        self._last = now
