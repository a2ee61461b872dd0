"""Where the time of a job goes: what was said when, and how busy CPUs and GPUs were meanwhile.

What was said is the log of this program itself, down to DEBUG: a stage says what it has done, and
with ``--profile`` that becomes a time line.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

FOLDER = "profile"  # under --out
EVERY_S = 0.5
LOGGER = "carvana_ray"
_GPUS = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


@dataclass
class Timeline:
    """What happened, in seconds since the process began.

    Attributes:
        marks: (second, what was said).
        cpu: (second, share of all cores that was busy, 0..1) since the sample before.
        gpu: (second, share of the time in which a kernel ran, mean over GPUs, 0..1).
    """

    marks: list[tuple[float, str]] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)
    gpu: list[tuple[float, float]] = field(default_factory=list)

    def files(self, job: str) -> dict[str, bytes]:
        """Return the time line of a job as numbers and as a picture, by file name."""
        return {f"{job}-timeline.json": self.to_json(), f"{job}-timeline.png": self.to_png()}

    def to_json(self) -> bytes:
        """Return the time line as JSON."""
        rounded = {
            name: [(round(at, 2), value) for at, value in getattr(self, name)]
            for name in ("marks", "cpu", "gpu")
        }
        return json.dumps(rounded, indent=1).encode()

    def to_png(self) -> bytes:
        """Return a picture: how busy CPUs and GPUs were, and the marks as lines across."""
        figure = Figure(figsize=(12, 5), layout="constrained")
        axes = figure.subplots()
        for name, samples in (("CPUs", self.cpu), ("GPUs", self.gpu)):
            if samples:
                axes.plot(*zip(*samples, strict=True), label=name, linewidth=1)
        for at, said in self.marks:
            axes.axvline(at, color="gray", linewidth=0.5)
            axes.text(at, 1.02, f" {said[:60]}", rotation=60, fontsize=6, va="bottom")
        axes.set(xlabel="seconds since the command began", ylabel="busy", ylim=(0, 1))
        axes.legend(loc="lower right")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=120)
        return data.getvalue()


class Profiler(logging.Handler):
    """Fills a `Timeline` for as long as a ``with`` block runs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.timeline = Timeline()
        self._began = _began()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._look_at_cpus, daemon=True)]
        self._smi: subprocess.Popen[str] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take what was said as a mark."""
        self.timeline.marks.append((record.created - self._began, record.getMessage()))

    def __enter__(self) -> "Profiler":
        logger = logging.getLogger(LOGGER)
        shown = logger.getEffectiveLevel()
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        for handler in logging.getLogger().handlers:  # what is shown stays what it was
            handler.setLevel(shown)
        with contextlib.suppress(FileNotFoundError):  # no GPU here
            self._smi = subprocess.Popen(
                [*_GPUS, f"-lms={int(EVERY_S * 1000)}"], stdout=subprocess.PIPE, text=True
            )
            self._threads.append(threading.Thread(target=self._look_at_gpus, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        logging.getLogger(LOGGER).removeHandler(self)
        if self._smi:
            self._smi.terminate()
            self._smi.wait()

    def _now(self) -> float:
        return time.time() - self._began

    def _look_at_cpus(self) -> None:
        before = _ticks()
        while before and not self._over.wait(EVERY_S):
            after = _ticks()
            idle, total = (new - old for new, old in zip(after, before, strict=True))
            self.timeline.cpu.append((self._now(), round(1 - idle / max(total, 1), 3)))
            before = after

    def _look_at_gpus(self) -> None:
        assert self._smi is not None
        assert self._smi.stdout is not None
        values: list[float] = []
        last = self._now()
        for line in self._smi.stdout:  # one a GPU, all of them each time
            with contextlib.suppress(ValueError):
                values.append(float(line) / 100)
            if self._now() - last > EVERY_S / 2 and values:
                last = self._now()
                self.timeline.gpu.append((last, round(sum(values) / len(values), 3)))
                values = []


def _ticks() -> tuple[int, ...]:
    """Return (idle, all) clock ticks of all cores since the machine began; () where not known."""
    with contextlib.suppress(OSError):
        numbers = [int(one) for one in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        idle, waits, stolen = numbers[3], numbers[4], numbers[7]  # the last: by other machines
        return idle + waits + stolen, sum(numbers)
    return ()


def _began() -> float:
    """Return the time at which this process began, or now where the system does not say."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        after_name = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - up + int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.time()


def trace(profile: Any) -> dict[str, bytes]:
    """Return the files of a `torch.profiler.profile` that is over: trace, and a table of kernels.

    The trace opens in https://ui.perfetto.dev and in chrome://tracing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        profile.export_chrome_trace(str(path))
        data = path.read_bytes()
    rows = profile.key_averages()
    on_gpu = any(row.self_device_time_total for row in rows)
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    table = rows.table(sort_by=by, row_limit=40, max_name_column_width=90)
    return {path.name: data, "kernels.txt": table.encode()}
