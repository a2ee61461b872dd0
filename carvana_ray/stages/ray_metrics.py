"""Gauges on Ray's dashboard, next to Ray's own. Prometheus shows them with the prefix ``ray_``.

A process that runs without Ray has no dashboard, and does not import Ray here.
"""

import functools
import sys
import threading
import time
from typing import TYPE_CHECKING

from carvana_ray.runtime.progress import ProgressMeter

if TYPE_CHECKING:
    from ray.util.metrics import Gauge


@functools.cache  # a process can register a name only once
def _gauge(name: str, description: str) -> "Gauge":
    from ray.util.metrics import Gauge

    return Gauge(name, description=description, tag_keys=("stage",))


def _set(name: str, description: str, value: float, stage: str) -> None:
    if "ray" in sys.modules:
        _gauge(name, description).set(value, tags={"stage": stage})


def set_rate(stage: str, rate: float) -> None:
    """Show the images a second of a stage, 0 when it is over. The job's driver calls this."""
    _set("carvana_ray_pictures_per_second", "Images a second of a stage", rate, stage)


def set_wait(stage: str, fraction: float) -> None:
    """Show the fraction of its time, 0 to 1, that this process has waited for images."""
    description = "Fraction of its time that a process waits for images"
    _set("carvana_ray_data_wait_fraction", description, fraction, stage)


def meter(stage: str, total: int, already: int = 0) -> ProgressMeter:
    """Return a `ProgressMeter` whose rate is shown on the dashboard too."""
    return ProgressMeter(stage, total, already, on_rate=functools.partial(set_rate, stage))


class WaitTimer:
    """Measures how long a process waits between its batches.

    A context manager around the work on each batch, for any number of threads: a process waits
    while none of them works. The start, up to the first batch, is not counted.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._lock = threading.Lock()
        self._working = 0  # threads
        self._waited = self._worked = 0.0
        self._ended: float | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._working += 1
            if self._working == 1:
                self._began = time.monotonic()
                if self._ended is not None:
                    self._waited += self._began - self._ended

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._working -= 1
            if self._working == 0:
                self._ended = time.monotonic()
                self._worked += self._ended - self._began
                fraction = self._waited / max(self._waited + self._worked, 1e-9)
                set_wait(self._stage, fraction)
