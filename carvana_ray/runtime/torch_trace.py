"""A trace of some steps of a worker, by PyTorch's profiler."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity

from carvana_ray import storage
from carvana_ray.runtime import profiler as profiling

AFTER, WARM, STEPS = 5, 2, 6


class Trace:
    """Watches steps `AFTER` + `WARM` to + `STEPS`, and writes what it saw; must be told of each.

    Args:
        folder: for NAME-trace.json.gz and NAME-kernels.txt.
        name: of the worker.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, name
        kinds = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(
            activities=kinds,
            schedule=torch.profiler.schedule(wait=AFTER, warmup=WARM, active=STEPS, repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()
        self._left = AFTER + WARM + STEPS

    def step(self) -> None:
        """Say that a step is over."""
        if self._left > 0:
            self._left -= 1
            self._profiler.step()
            if not self._left:
                self._profiler.stop()

    def _write(self, profiler: Any) -> None:
        for name, data in profiling.trace(profiler).items():
            uri = storage.join(self._folder, f"{self._name}-{name}")
            storage.write_atomic(uri, data, replace=True)
