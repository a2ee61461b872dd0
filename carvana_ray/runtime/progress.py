"""The progress of a job: a live bar on a terminal, a line every ten seconds in a log (stderr)."""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from carvana_ray.runtime.wording import count_of, format_duration

LINE_EVERY_S = 10.0
STILL_LINE_EVERY_S = 80.0  # at most, while nothing moves; the pauses double up to it
STEADY_AFTER_S = 1.0
TICK_S = 1.0  # of the thread that shows how long nothing has moved
STILL_AFTER_S = 20.0  # or three times the longest pause so far, if images come in blocks

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
        self._moved_at = self._printed_at = self._start[0]
        self._longest_pause, self._print_after = 0.0, LINE_EVERY_S
        self._bar: Progress | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()

    def __enter__(self) -> "ProgressMeter":
        if self._stream and is_terminal(self._stream):
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None, table_column=Column(ratio=1)),
                MofNCompleteColumn(table_column=Column(min_width=2 * len(str(self.total)) + 1)),
                TextColumn("{task.fields[status]}"),
                console=Console(file=self._stream),
                get_time=self._clock,
                expand=True,  # the bar takes the rest of the width, so that one line is enough
            )
            self._bar.start()
            self._bar_task = self._bar.add_task(
                self.task, total=self.total, completed=self.done, status="starting"
            )
        else:
            self._print(f"{self.task}: starting, {count_of(self.total, 'images', self.done)}")
        if self._stream:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._on_rate(0.0)
        with self._lock:
            if self._bar:
                self._bar.stop()
            else:
                rate = f", {self.rate:.1f} images/s" if self.rate else ""
                self._print(f"{self.task}: {self.done} of {self.total}{rate}")

    def set(self, done: int) -> None:
        """Set the number of images that are done, including those of an earlier run."""
        now = self._clock()
        if done > self.done:
            if self._first:
                self._longest_pause = max(self._longest_pause, now - self._moved_at)
            self._first = self._first or (now, done)
            self._moved_at, self._print_after = now, LINE_EVERY_S
            steady = now - self._first[0] >= STEADY_AFTER_S
            since, before = self._first if steady else self._start
            self.rate = (done - before) / max(now - since, 1e-9)
            self._on_rate(self.rate)
        self.done = done
        self.refresh()

    def end(self, rate: float) -> None:
        """Set all images as done, at a rate that was measured closer to the work."""
        self.done, self.rate = self.total, rate
        self.refresh()

    def refresh(self) -> None:
        """Show the state of now: on a terminal at once, in a log if the last line is old enough."""
        now = self._clock()
        with self._lock:
            if self._bar:
                status = self._describe(now)
                self._bar.update(self._bar_task, completed=self.done, status=status)
            elif now - self._printed_at >= self._print_after and self.done < self.total:
                self._printed_at = now
                self._print(f"{self.task}: {self.done} of {self.total}, {self._describe(now)}")
                if self._is_still(now):
                    self._print_after = min(2 * self._print_after, STILL_LINE_EVERY_S)

    def _describe(self, now: float) -> str:
        """Return rate and time left, or how long nothing has moved."""
        if not self.rate:
            return f"still starting after {format_duration(now - self._start[0])}"
        if self._is_still(now):
            return f"no new image for {format_duration(now - self._moved_at)}"
        left = format_duration(max(self.total - self.done, 0) / self.rate)
        return f"{self.rate:.1f} images/s, {left} left"

    def _is_still(self, now: float) -> bool:
        pause = now - self._moved_at
        waits = not self.rate or pause >= max(STILL_AFTER_S, 3 * self._longest_pause)
        return waits and self.done < self.total

    def _tick(self) -> None:
        while not self._ended.wait(TICK_S):
            self.refresh()

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
