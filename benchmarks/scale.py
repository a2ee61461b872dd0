"""Measure whether the cost of an image grows with the catalog.

    python benchmarks/scale.py --from FOLDER --model FOLDER --out FOLDER [--pictures 100064]

Makes a catalog of links to a few hundred images under names like Kaggle's, in an order in which
each stretch of the catalog holds all of them, and runs jobs/predict.py on it. Unknown flags are
passed on to that job. Meanwhile it samples the usage of the job and its local Ray session from
/proc. The images are links to few files, so they are read from memory: the disk does not count.

It compares two windows of 8 % of the images each: the second one and the last one. Wall time comes
from the shards' files, CPU time from all processes. A process that starts and ends between two
samples is missed; Ray keeps its workers, so there are few. All samples are in OUT/scale.csv. The
last line is one JSON object, and the exit code is that of the job.
"""

import argparse
import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ray.data import layout

JOB = Path(__file__).resolve().parents[1] / "jobs" / "predict.py"
WINDOW, EARLY = 0.08, 0.1  # fractions of the images: a window; where memory is first compared
NEAR_END = 0.98  # from this fraction on samples are closer, to separate the merge
MEMORIES = ("driver_mb", "driver_own_mb", "worker_mb", "store_mb")
TICKS = os.sysconf("SC_CLK_TCK")
MB = 1e6


def make_catalog(sources: list[Path], folder: Path, images: int, seed: int) -> None:
    """Make FOLDER/test and FOLDER/sample_submission.csv from a few hundred images."""
    names = []
    for number in range(images):
        car, view = divmod(number, layout.VIEWS)
        code = hashlib.sha256(f"{seed}-{car}".encode()).hexdigest()[:12]
        names.append(f"{code}_{view + 1:02d}.jpg")
    names.sort()  # the order of the shards: all sources take turns in every stretch
    (folder / layout.TEST).mkdir(parents=True)
    for number, name in enumerate(names):
        source, target = sources[number % len(sources)], folder / layout.TEST / name
        try:
            os.link(source, target)
        except OSError:  # another file system, or one that allows no more links to this file
            shutil.copyfile(source, target)
            sources[number % len(sources)] = target
    with open(folder / layout.SAMPLE_SUBMISSION, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(layout.CSV_HEADER)
        rows.writerows((name, "1 1") for name in names)


@dataclass(frozen=True)
class Sample:
    """Usage at one time. Memory in MB.

    Attributes:
        time: seconds since the epoch, as in file times.
        pictures: images in the shards so far.
        cpu_s, driver_cpu_s: CPU time so far, of all processes and of the driver.
        driver_mb, driver_own_mb, driver_peak_mb: resident; not shared; peak so far.
        worker_mb, worker: unshared memory of the largest worker, and its title.
        store_mb: pages of the object store touched so far (they are reused, not returned).
        spilled_mb: bytes from the object store to files so far.
        processes: number of processes alive.
    """

    time: float
    pictures: int
    cpu_s: float
    driver_cpu_s: float
    driver_mb: float
    driver_own_mb: float
    driver_peak_mb: float
    worker_mb: float
    worker: str
    store_mb: float
    spilled_mb: float
    processes: int


class Sampler:
    """Samples a job: its process, all descendants, and the shards that it writes."""

    def __init__(self, driver: int, out: Path, images: int) -> None:
        self._driver, self._out, self._images = driver, out, images
        self._cpu: dict[tuple[int, int], float] = {}  # by process id and start time: ids recur
        self._spilled: dict[str, int] = {}  # by file: Ray removes files that it has restored
        self._session: str | None = None
        self._store: str | None = None

    def sample(self) -> Sample:
        """Return the usage now."""
        kin = self._live_processes()
        memory = {pid: _memory(pid) for pid in kin}
        titles = {pid: _text(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in kin}
        workers = [pid for pid in kin if titles[pid].startswith("ray::")]
        largest = max(workers, key=lambda pid: memory[pid]["RssAnon"], default=0)
        for pid in kin:
            self._find_session(pid, titles[pid])
        driver = memory.get(self._driver, _memory(0))
        return Sample(
            time=time.time(),
            pictures=sum(rows for _, rows in commits(self._out, self._images)),
            cpu_s=sum(self._cpu.values()),
            driver_cpu_s=sum(cpu for (pid, _), cpu in self._cpu.items() if pid == self._driver),
            driver_mb=driver["VmRSS"],
            driver_own_mb=driver["RssAnon"],
            driver_peak_mb=driver["VmHWM"],
            worker_mb=memory[largest]["RssAnon"] if largest else 0.0,
            worker=titles[largest].strip() if largest else "",
            store_mb=self._store_mb(),
            spilled_mb=self._spilled_mb(),
            processes=len(kin),
        )

    def _live_processes(self) -> list[int]:
        """Return the live processes of the job, and record the CPU time of each."""
        children, times = defaultdict(list), {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            if fields := _text(f"/proc/{pid}/stat").rpartition(")")[2].split():
                children[int(fields[1])].append(pid)
                times[pid] = (int(fields[19]), (int(fields[11]) + int(fields[12])) / TICKS)
        kin = [self._driver] if self._driver in times else []
        # Processes seen before stay, even if their parent has changed.
        kin += [pid for pid, start in self._cpu if pid in times and times[pid][0] == start]
        kin = list(dict.fromkeys(kin))
        for pid in kin:  # the list grows while it is read
            kin += [child for child in children[pid] if child not in kin]
        for pid in kin:
            self._cpu[pid, times[pid][0]] = times[pid][1]
        return kin

    def _find_session(self, pid: int, title: str) -> None:
        """Find the session folder in a process's arguments, and the object store in its files."""
        if not self._session and (match := re.search(r"--session-dir=(\S+)", title)):
            self._session = match[1]
        if not self._store and "/raylet --raylet_socket_name" in title:
            files = [str(file) for file in Path(f"/proc/{pid}/fd").glob("*")]
            # Ray unlinks the file once it is open; its path below /proc remains.
            self._store = next((f for f in files if "/plasma" in _target(f)), None)

    def _store_mb(self) -> float:
        try:
            return os.stat(self._store).st_blocks * 512 / MB if self._store else 0.0
        except OSError:
            return 0.0

    def _spilled_mb(self) -> float:
        for file in Path(self._session or "/nowhere").glob("ray_spilled_objects*/*"):
            try:
                self._spilled[str(file)] = file.stat().st_size
            except OSError:
                continue  # the file was removed meanwhile
        return sum(self._spilled.values()) / MB


def _text(path: str) -> str:
    """Return the text of a file of /proc, or "" if the process has ended."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _memory(pid: int) -> dict[str, float]:
    """Return resident memory in MB: all, unshared, and the peak."""
    text = _text(f"/proc/{pid}/status") if pid else ""
    fields = {key: int(kb) * 1024 / MB for key, kb in re.findall(r"(\w+):\s+(\d+) kB", text)}
    resident = fields.get("VmRSS", 0.0)  # replaces fields that a sandbox's /proc lacks
    return {key: fields.get(key, resident) for key in ("VmRSS", "RssAnon", "VmHWM")}


def commits(out: Path, images: int) -> list[tuple[float, int]]:
    """Return (time, images) of each shard so far, in order of time.

    The plan has one part, so the length of a shard follows from its number.
    """
    written = []
    for file in out.glob("predict/*/shards/*.parquet"):
        shard, count = map(int, file.stem.split("-of-"))
        rows = images * (shard + 1) // count - images * shard // count
        written.append((file.stat().st_mtime, rows))
    return sorted(written)


class Record:
    """The samples of a complete run, by number of images done."""

    def __init__(self, samples: list[Sample], out: Path, images: int) -> None:
        self.samples, self.images = samples, images
        times, rows = zip(*commits(out, images), strict=True)
        self.times, self._done = np.array(times), np.cumsum(rows)
        self._sample_times = np.array([sample.time for sample in samples])

    def when(self, images: float) -> float:
        """Return the time at which so many images were done."""
        return float(np.interp(images, self._done, self.times))

    def cost(self, first: float, last: float) -> dict[str, float]:
        """Return ms per image between two numbers of images done."""

        def used(name: str) -> float:
            seconds = [getattr(sample, name) for sample in self.samples]
            begin, end = np.interp([self.when(first), self.when(last)], self._sample_times, seconds)
            return float(end - begin)

        seconds = {
            "wall_ms": self.when(last) - self.when(first),
            "cpu_ms": used("cpu_s"),
            "driver_cpu_ms": used("driver_cpu_s"),
        }
        return {name: round(value / (last - first) * 1e3, 4) for name, value in seconds.items()}

    def sample_at(self, images: float) -> Sample:
        """Return the last sample before so many images were done; memory is not interpolated."""
        number = np.searchsorted(self._sample_times, self.when(images), side="right") - 1
        return self.samples[max(int(number), 0)]

    def memory(self, name: str) -> dict[str, float]:
        """Return MB after a tenth of the images and after all, the difference, and the peak."""
        first = getattr(self.sample_at(EARLY * self.images), name)
        last = getattr(self.sample_at(self.images), name)
        peak = max(getattr(sample, name) for sample in self.samples)
        values = {"at_tenth": first, "at_end": last, "growth": last - first, "peak": peak}
        return {key: round(value, 1) for key, value in values.items()}

    def merge_peak(self) -> float:
        """Return the driver's peak of resident MB after the last shard."""
        after = [sample for sample in self.samples if sample.time > self.times[-1]]
        merging = after or self.samples[-1:]
        if merging[-1].driver_peak_mb > self.sample_at(self.images).driver_peak_mb:
            return merging[-1].driver_peak_mb  # the peak of the whole run, which no sample misses
        return max(sample.driver_mb for sample in merging)


def summary(samples: list[Sample], out: Path, images: int, ended: float) -> dict[str, Any]:
    """Return the figures of a complete run."""
    record = Record(samples, out, images)
    window, tenth = WINDOW * images, images / 10
    early, late = record.cost(window, 2 * window), record.cost(images - window, images)
    # The first tenth is left out: processes start in it.
    tenths = [record.cost(tenth * k, tenth * (k + 1)) for k in range(1, 10)]
    first, last = record.times[0], record.times[-1]
    success = [file.stat().st_mtime for file in out.glob("predict/*/_SUCCESS.json")]
    return {
        "early": early,
        "late": late,
        "late_by_early": {key: round(late[key] / early[key], 3) for key in early if early[key]},
        "by_tenth": {key: [cost[key] for cost in tenths] for key in early},
        **{name: record.memory(name) for name in MEMORIES},
        "merge_driver_peak_mb": round(record.merge_peak(), 1),
        "start_s": round(first - samples[0].time, 1),
        "predict_s": round(last - first, 1),
        "merge_and_check_s": round(max(success, default=ended) - last, 2),
        "merge_and_end_cpu_s": round(samples[-1].cpu_s - record.sample_at(images).cpu_s, 1),
        "spilled_mb": round(samples[-1].spilled_mb, 1),
    }


def run(command: list[str], out: Path, images: int, every: float) -> tuple[int, list[Sample]]:
    """Run the job and sample it until it ends; return its exit code and the samples."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    samples = []
    with open(out / "job.out", "wb") as stdout, open(out / "scale.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Sample)])
        table.writeheader()
        job = subprocess.Popen(command, stdout=stdout, env=environment)
        sampler = Sampler(job.pid, out / "run", images)
        try:
            while job.poll() is None:
                samples.append(sampler.sample())
                table.writerow(dataclasses.asdict(samples[-1]))
                file.flush()
                ending = NEAR_END * images <= samples[-1].pictures < images
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(every / 10 if ending else every)
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait()
    return job.returncode, samples


def main() -> int:
    """Run the benchmark; return the job's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pictures", type=int, default=100_064, help="size of the catalog")
    parser.add_argument("--from", dest="source", required=True, help="folder of images or of test/")
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the names")
    flags, others = parser.parse_known_args()
    source, out = Path(flags.source), flags.out.resolve()
    folder = source / layout.TEST if (source / layout.TEST).is_dir() else source
    sources = sorted(path.resolve() for path in folder.glob("*.jpg"))
    if not sources:
        parser.error(f"--from {folder}: no .jpg files")
    if out.exists() and any(out.iterdir()):
        parser.error(f"--out {out}: not empty; existing shards would not be measured")
    began = time.monotonic()
    make_catalog(list(sources), out / "catalogue", flags.pictures, flags.seed)
    made = time.monotonic()
    command = [sys.executable, str(JOB), "--data", str(out / "catalogue"), "--model", flags.model]
    command += ["--out", str(out / "run"), *others]
    code, samples = run(command, out, flags.pictures, flags.every)
    ended = time.time()
    lines = (out / "job.out").read_text().splitlines()
    complete = sum(rows for _, rows in commits(out / "run", flags.pictures)) == flags.pictures
    result = {
        "benchmark": "scale",
        "pictures": flags.pictures,
        "drawn": len(sources),
        "exit_code": code,
        "catalogue_s": round(made - began, 1),
        "seconds": round(ended - samples[0].time, 1),
        **(summary(samples, out / "run", flags.pictures, ended) if complete else {}),
        "watch_cpu_s": round(time.process_time(), 1),
        "job": json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.exit(main())
