"""How busy the CPUs and GPUs of this machine are while a command runs."""

import contextlib
import subprocess
import threading
import time
from pathlib import Path

EVERY_S = 0.5
NVIDIA_SMI = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
NVIDIA_SMI += [f"-lms={int(EVERY_S * 1000)}"]


class UsageSampler:
    """Samples the usage of all cores and GPUs for as long as a ``with`` block runs.

    Attributes:
        cpu: (second, fraction of all cores that was busy since the sample before).
        gpu: (second, fraction of the time in which a kernel ran, mean over the GPUs).
    """

    def __init__(self) -> None:
        self.cpu: list[tuple[float, float]] = []
        self.gpu: list[tuple[float, float]] = []
        self._began = time.monotonic()
        self._over = threading.Event()
        self._smi: subprocess.Popen[str] | None = None

    def __enter__(self) -> "UsageSampler":
        threading.Thread(target=self._sample_cpus, daemon=True).start()
        with contextlib.suppress(FileNotFoundError):  # no GPU here
            self._smi = subprocess.Popen(NVIDIA_SMI, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._sample_gpus, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._smi:
            self._smi.terminate()
            self._smi.wait()

    def now(self) -> float:
        """Return the seconds since the sampler was created."""
        return time.monotonic() - self._began

    def _sample_cpus(self) -> None:
        before = _cpu_ticks()
        while not self._over.wait(EVERY_S):
            after = _cpu_ticks()
            idle, total = (new - old for new, old in zip(after, before, strict=True))
            self.cpu.append((self.now(), 1 - idle / max(total, 1)))
            before = after

    def _sample_gpus(self) -> None:
        assert self._smi is not None
        assert self._smi.stdout is not None
        values: list[float] = []
        last = self.now()
        for line in self._smi.stdout:  # one line a GPU, all GPUs at each sample
            with contextlib.suppress(ValueError):
                values.append(float(line) / 100)
            if self.now() - last > EVERY_S / 2 and values:
                last = self.now()
                self.gpu.append((last, sum(values) / len(values)))
                values = []


def _cpu_ticks() -> tuple[int, int]:
    """Return the (idle, total) clock ticks of all cores since the machine started."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle, waiting, stolen = numbers[3], numbers[4], numbers[7]  # stolen by other machines
    return idle + waiting + stolen, sum(numbers)
