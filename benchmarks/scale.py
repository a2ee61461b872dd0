"""Whether a picture of a large catalogue costs what one of a small catalogue does.

    python benchmarks/scale.py --from FOLDER --model FOLDER --out FOLDER [--pictures 100064]

makes a catalogue of links to a few hundred pictures under names like Kaggle's, in such an order
that each stretch of it holds all of them, and runs jobs/predict.py over it, to which unknown flags
are passed on. Meanwhile it reads from /proc what the job and its local Ray session use. Being
links, the pictures are read from memory: the disk does not count.

Compared are two windows of 8 % of the pictures each: the second one, and the last one. Wall time is
that of the shards' files, CPU time that of all processes. A process that lives and dies between two
looks is missed; Ray keeps its workers, so there are few. All looks are in OUT/scale.csv; the last
line is one JSON object, the exit code that of the job.
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

from carvana_ray.data import layout as carvana

JOB = Path(__file__).resolve().parents[1] / "jobs" / "predict.py"
WINDOW, EARLY = 0.08, 0.1  # of the pictures: a window; where memory is first compared
NEAR_END = 0.98  # from here on looks are closer together, to tell the merge from what is before
MEMORIES = ("driver_mb", "driver_own_mb", "worker_mb", "store_mb")
TICKS = os.sysconf("SC_CLK_TCK")
MB = 1e6


def make_catalogue(sources: list[Path], folder: Path, pictures: int, seed: int) -> None:
    """Make FOLDER/test and FOLDER/sample_submission.csv; a few hundred pictures serve for all."""
    names = []
    for number in range(pictures):
        car, view = divmod(number, carvana.VIEWS)
        code = hashlib.sha256(f"{seed}-{car}".encode()).hexdigest()[:12]
        names.append(f"{code}_{view + 1:02d}.jpg")
    names.sort()  # the order of the shards: every stretch of them gets all sources in turn
    (folder / carvana.TEST).mkdir(parents=True)
    for place, name in enumerate(names):
        source, target = sources[place % len(sources)], folder / carvana.TEST / name
        try:
            os.link(source, target)
        except OSError:  # another file system, or one that allows no more links to this file
            shutil.copyfile(source, target)
            sources[place % len(sources)] = target
    with open(folder / carvana.SAMPLE_SUBMISSION, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(carvana.CSV_HEADER)
        rows.writerows((name, "1 1") for name in names)


@dataclass(frozen=True)
class Look:
    """What there is to see at a time. Memory in MB.

    Attributes:
        time: s since the epoch, as files have it.
        pictures: in the shards that are there.
        cpu_s, driver_cpu_s: used so far, by all processes and by the driver.
        driver_mb, driver_own_mb, driver_peak_mb: resident; without what is shared; most so far.
        worker_mb, worker: what the largest worker has for itself, and what it did.
        store_mb: pages of the object store touched so far (they are used again, not given back).
        spilled_mb: from the object store to files, so far.
        processes: alive.
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


class Watch:
    """Looks at a job: its process, all that descend from it, and the shards that it writes."""

    def __init__(self, driver: int, out: Path, pictures: int) -> None:
        self._driver, self._out, self._pictures = driver, out, pictures
        self._cpu: dict[tuple[int, int], float] = {}  # by process and its start: numbers recur
        self._spilled: dict[str, int] = {}  # by file: those that were read again are removed
        self._session: str | None = None
        self._store: str | None = None

    def look(self) -> Look:
        """Return what there is now."""
        kin = self._kin()
        memory = {pid: _memory(pid) for pid in kin}
        titles = {pid: _text(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in kin}
        workers = [pid for pid in kin if titles[pid].startswith("ray::")]
        largest = max(workers, key=lambda pid: memory[pid]["RssAnon"], default=0)
        for pid in kin:
            self._find_session(pid, titles[pid])
        driver = memory.get(self._driver, _memory(0))
        return Look(
            time=time.time(),
            pictures=sum(rows for _, rows in commits(self._out, self._pictures)),
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

    def _kin(self) -> list[int]:
        """Return the processes of the job that are alive; note what CPU time each has used."""
        children, times = defaultdict(list), {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            if fields := _text(f"/proc/{pid}/stat").rpartition(")")[2].split():
                children[int(fields[1])].append(pid)
                times[pid] = (int(fields[19]), (int(fields[11]) + int(fields[12])) / TICKS)
        kin = [self._driver] if self._driver in times else []
        # Those seen before stay, whoever their parent is now.
        kin += [pid for pid, start in self._cpu if pid in times and times[pid][0] == start]
        kin = list(dict.fromkeys(kin))
        for pid in kin:  # grows
            kin += [child for child in children[pid] if child not in kin]
        for pid in kin:
            self._cpu[pid, times[pid][0]] = times[pid][1]
        return kin

    def _find_session(self, pid: int, title: str) -> None:
        """Find the session's folder in a process's arguments, and its store among its files."""
        if not self._session and (found := re.search(r"--session-dir=(\S+)", title)):
            self._session = found[1]
        if not self._store and "/raylet --raylet_socket_name" in title:
            files = [str(file) for file in Path(f"/proc/{pid}/fd").glob("*")]
            # Its name is removed as soon as it is open; the way through /proc remains.
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
                continue  # gone meanwhile
        return sum(self._spilled.values()) / MB


def _text(path: str) -> str:
    """Return a file of /proc; none of a process that has ended is an empty one."""
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
    """Return resident memory in MB: all, what no other process shares, the most there ever was."""
    text = _text(f"/proc/{pid}/status") if pid else ""
    found = {key: int(kb) * 1024 / MB for key, kb in re.findall(r"(\w+):\s+(\d+) kB", text)}
    resident = found.get("VmRSS", 0.0)  # stands in for what a sandbox's /proc does not tell
    return {key: found.get(key, resident) for key in ("VmRSS", "RssAnon", "VmHWM")}


def commits(out: Path, pictures: int) -> list[tuple[float, int]]:
    """Return (time, pictures) of each shard that is there, by time.

    The plan is one part: shards of `pictures`, whose lengths follow from place and number.
    """
    found = []
    for file in out.glob("predict/*/shards/*.parquet"):
        shard, count = map(int, file.stem.split("-of-"))
        rows = pictures * (shard + 1) // count - pictures * shard // count
        found.append((file.stat().st_mtime, rows))
    return sorted(found)


class Record:
    """A run that has predicted all pictures: what was seen, against pictures done."""

    def __init__(self, looks: list[Look], out: Path, pictures: int) -> None:
        self.looks, self.pictures = looks, pictures
        times, rows = zip(*commits(out, pictures), strict=True)
        self.times, self._done = np.array(times), np.cumsum(rows)
        self._seen = np.array([look.time for look in looks])

    def when(self, picture: float) -> float:
        """Return the time at which so many pictures were done."""
        return float(np.interp(picture, self._done, self.times))

    def cost(self, first: float, last: float) -> dict[str, float]:
        """Return ms a picture in a window of pictures."""

        def used(name: str) -> float:
            seconds = [getattr(look, name) for look in self.looks]
            begin, end = np.interp([self.when(first), self.when(last)], self._seen, seconds)
            return float(end - begin)

        seconds = {
            "wall_ms": self.when(last) - self.when(first),
            "cpu_ms": used("cpu_s"),
            "driver_cpu_ms": used("driver_cpu_s"),
        }
        return {name: round(value / (last - first) * 1e3, 4) for name, value in seconds.items()}

    def look_at(self, picture: float) -> Look:
        """Return the last look before so many were done: between two looks memory may jump."""
        place = np.searchsorted(self._seen, self.when(picture), side="right") - 1
        return self.looks[max(int(place), 0)]

    def memory(self, name: str) -> dict[str, float]:
        """Return MB after a tenth of the pictures, at the end of predicting, and at most."""
        first = getattr(self.look_at(EARLY * self.pictures), name)
        last = getattr(self.look_at(self.pictures), name)
        peak = max(getattr(look, name) for look in self.looks)
        values = {"at_tenth": first, "at_end": last, "growth": last - first, "peak": peak}
        return {key: round(value, 1) for key, value in values.items()}

    def merge_peak(self) -> float:
        """Return the driver's most resident MB from the last shard on."""
        merging = [look for look in self.looks if look.time > self.times[-1]] or self.looks[-1:]
        if merging[-1].driver_peak_mb > self.look_at(self.pictures).driver_peak_mb:
            return merging[-1].driver_peak_mb  # the most of the whole run, so no look can miss it
        return max(look.driver_mb for look in merging)


def summary(looks: list[Look], out: Path, pictures: int, ended: float) -> dict[str, Any]:
    """Return the figures of a run that has predicted all pictures."""
    record = Record(looks, out, pictures)
    window, tenth = WINDOW * pictures, pictures / 10
    early, late = record.cost(window, 2 * window), record.cost(pictures - window, pictures)
    tenths = [record.cost(tenth * k, tenth * (k + 1)) for k in range(1, 10)]  # the first: starting
    first, last = record.times[0], record.times[-1]
    success = [file.stat().st_mtime for file in out.glob("predict/*/_SUCCESS.json")]
    return {
        "early": early,
        "late": late,
        "late_by_early": {key: round(late[key] / early[key], 3) for key in early if early[key]},
        "by_tenth": {key: [one[key] for one in tenths] for key in early},
        **{name: record.memory(name) for name in MEMORIES},
        "merge_driver_peak_mb": round(record.merge_peak(), 1),
        "start_s": round(first - looks[0].time, 1),
        "predict_s": round(last - first, 1),
        "merge_and_check_s": round(max(success, default=ended) - last, 2),
        "merge_and_end_cpu_s": round(looks[-1].cpu_s - record.look_at(pictures).cpu_s, 1),
        "spilled_mb": round(looks[-1].spilled_mb, 1),
    }


def run(command: list[str], out: Path, pictures: int, every: float) -> tuple[int, list[Look]]:
    """Run the job, look at it until it ends; return its exit code and what was seen."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    looks = []
    with open(out / "job.out", "wb") as stdout, open(out / "scale.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Look)])
        table.writeheader()
        job = subprocess.Popen(command, stdout=stdout, env=environment)
        watch = Watch(job.pid, out / "run", pictures)
        try:
            while job.poll() is None:
                looks.append(watch.look())
                table.writerow(dataclasses.asdict(looks[-1]))
                file.flush()
                ending = NEAR_END * pictures <= looks[-1].pictures < pictures
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(every / 10 if ending else every)
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait()
    return job.returncode, looks


def main() -> int:
    """Run the benchmark; return the job's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pictures", type=int, default=100_064, help="of the catalogue")
    parser.add_argument("--from", dest="source", required=True, help="folder of pictures, or test/")
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--out", type=Path, required=True, help="folder, new or empty")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between looks")
    parser.add_argument("--seed", type=int, default=0, help="of the names")
    flags, others = parser.parse_known_args()
    source, out = Path(flags.source), flags.out.resolve()
    folder = source / carvana.TEST if (source / carvana.TEST).is_dir() else source
    sources = sorted(path.resolve() for path in folder.glob("*.jpg"))
    if not sources:
        parser.error(f"--from {folder}: no .jpg there")
    if out.exists() and any(out.iterdir()):
        parser.error(f"--out {out}: not empty; what is done already would not be measured")
    began = time.monotonic()
    make_catalogue(list(sources), out / "catalogue", flags.pictures, flags.seed)
    made = time.monotonic()
    command = [sys.executable, str(JOB), "--data", str(out / "catalogue"), "--model", flags.model]
    command += ["--out", str(out / "run"), *others]
    code, looks = run(command, out, flags.pictures, flags.every)
    ended = time.time()
    lines = (out / "job.out").read_text().splitlines()
    complete = sum(rows for _, rows in commits(out / "run", flags.pictures)) == flags.pictures
    result = {
        "benchmark": "scale",
        "pictures": flags.pictures,
        "drawn": len(sources),
        "exit_code": code,
        "catalogue_s": round(made - began, 1),
        "seconds": round(ended - looks[0].time, 1),
        **(summary(looks, out / "run", flags.pictures, ended) if complete else {}),
        "watch_cpu_s": round(time.process_time(), 1),
        "job": json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.exit(main())
