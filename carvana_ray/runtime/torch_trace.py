"""A trace of a few steps of one worker, by PyTorch's profiler."""

import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from carvana_ray import storage

PROFILE_DIR = "profile"  # below --out
SKIPPED, WARM_UP, TRACED = 5, 2, 6  # steps, in this order


class Trace:
    """Traces `TRACED` steps and writes them to a folder.

    Args:
        folder: for NAME-trace.json.gz, which opens in https://ui.perfetto.dev, and
            NAME-kernels.txt, a table of kernels.
        name: of the worker.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._prefix = storage.join(folder, name)
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=SKIPPED, warmup=WARM_UP, active=TRACED, repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()

    def step(self) -> None:
        """End a step. The caller calls this after each step, also after the trace is complete."""
        self._profiler.step()

    def _write(self, profile: torch.profiler.profile) -> None:
        with tempfile.NamedTemporaryFile(suffix=".json.gz") as file:
            profile.export_chrome_trace(file.name)
            trace = Path(file.name).read_bytes()
        storage.write_atomic(f"{self._prefix}-trace.json.gz", trace, replace=True)
        rows = profile.key_averages()
        on_gpu = any(row.self_device_time_total for row in rows)
        by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        table = rows.table(sort_by=by, row_limit=40, max_name_column_width=90)
        storage.write_atomic(f"{self._prefix}-kernels.txt", table.encode(), replace=True)
