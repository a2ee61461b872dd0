"""Gauges on Ray's dashboard, beside its own (``ray_`` before each name, as Prometheus reads them):

carvana_ray_pictures_per_second    of a stage, set by the job's driver
carvana_ray_data_wait_fraction     share of its time that a worker or replica waits for pictures
"""

import functools
import time

from ray.util.metrics import Gauge

from carvana_ray.runtime.progress import ProgressMeter


@functools.cache  # a name can be taken once a process
def _gauge(name: str, description: str) -> Gauge:
    return Gauge(f"carvana_ray_{name}", description=description, tag_keys=("stage",))


def set_rate(stage: str, rate: float) -> None:
    """Show the pictures a second of a stage; 0 when it is over."""
    _gauge("pictures_per_second", "Pictures a second").set(rate, tags={"stage": stage})


def set_wait(stage: str, fraction: float) -> None:
    """Show the share of time, 0 to 1, that this process has waited for pictures."""
    description = "Share of its time that a process waits for pictures"
    _gauge("data_wait_fraction", description).set(fraction, tags={"stage": stage})


def meter(stage: str, total: int, already: int = 0) -> ProgressMeter:
    """Return a `Meter` whose rate the dashboard shows as well."""
    return ProgressMeter(stage, total, already, tell=functools.partial(set_rate, stage))


class WaitTimer:
    """Adds up what a process waits between its pieces of work, as a context around each of them."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._waited = self._worked = 0.0
        self._ended: float | None = None  # before the first piece it waits for the job to start

    def __enter__(self) -> None:
        self._began = time.monotonic()
        if self._ended is not None:
            self._waited += self._began - self._ended

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._worked += self._ended - self._began
        set_wait(self._stage, self._waited / max(self._waited + self._worked, 1e-9))
