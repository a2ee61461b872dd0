"""Show what each second of one prediction command is used for.

    python benchmarks/predict_timeline.py --data FOLDER --model MODEL [--pictures 100064]

The images of FOLDER are linked under as many names as --pictures says. The command runs with
--verbose. The time line has the lines of its log, the first and the last shard, the published
files, and, from /proc, what each kind of process does and the CPU seconds that it takes. Flags
after ``--`` are those of the command. The last line is one JSON object.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from carvana_ray.data import layout

REPOSITORY = Path(__file__).resolve().parents[1]
EVERY_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
PUBLISHED = ("submission.csv", "review.csv", "report.html")


def link(source: list[Path], folder: Path, count: int) -> None:
    """Link images in turn under `count` names like Kaggle's."""
    folder.mkdir(parents=True)
    for number in range(count):
        car, view = divmod(number, layout.VIEWS)
        os.symlink(source[number % len(source)], folder / f"{car:012x}_{view + 1:02d}.jpg")


class ProcessSampler:
    """Samples the processes that descend from one process, until that one ends.

    Attributes:
        seen: by title of a process: [first second, last second, most at a time].
        cpu: by process: (title, CPU seconds so far), the title being its last one.
        states: (second, CPU seconds of all, number of processes).
    """

    def __init__(self, root: int, began: float) -> None:
        self._root, self._began = root, began
        self.seen: dict[str, list[float]] = {}
        self.cpu: dict[int, tuple[str, float]] = {}
        self.states: list[tuple[float, float, int]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the sampling."""
        self._thread.join()

    def _run(self) -> None:
        while os.path.exists(f"/proc/{self._root}/stat"):
            now = time.time() - self._began
            titles = defaultdict[str, int](int)
            for pid in self._descendants():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    title = _title(pid)
                    titles[title] += 1
                    self.cpu[pid] = title, _cpu_seconds(pid)
            for title, count in titles.items():
                first, _, most = self.seen.get(title, [now, now, 0])
                self.seen[title] = [first, now, max(most, count)]
            total = sum(seconds for _, seconds in self.cpu.values())
            self.states.append((now, total, sum(titles.values())))
            time.sleep(EVERY_S)

    def _descendants(self) -> set[int]:
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    parents[int(name)] = int(_stat(int(name))[1])
        found, size = {self._root}, 0
        while len(found) > size:
            size = len(found)
            found |= {pid for pid, parent in parents.items() if parent in found}
        return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(pid: int) -> float:
    values = _stat(pid)
    return (int(values[11]) + int(values[12])) / TICKS


def _title(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
    if not words:
        return "(ended)"
    if words[0].startswith("ray::"):
        return " ".join(words)[:70]
    script = next((word for word in words[1:] if word.endswith(".py")), words[0])
    module = words[words.index("-m") + 1] if "-m" in words[:4] else script
    return os.path.basename(module)[:70]


def run(command: list[str], out: Path) -> tuple[float, list[tuple[float, str]], ProcessSampler]:
    """Run a command; return its seconds, its events (second, text) and its processes."""
    events = []
    began = time.time()
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    sampler = ProcessSampler(running.pid, began)
    assert running.stdout is not None
    for line in running.stdout:
        events.append((time.time() - began, line.rstrip()))
    code = running.wait()
    seconds = time.time() - began
    sampler.join()
    if code:
        print("\n".join(line for _, line in events))
        raise SystemExit(f"{command} ended with {code}")
    events += [(second - began, text) for second, text in _file_times(out)]
    events.append((seconds, "[process ended]"))
    return seconds, sorted(events), sampler


def _file_times(out: Path) -> list[tuple[float, str]]:
    shards = sorted(path.stat().st_mtime for path in out.glob("predict/*/shards/*.parquet"))
    times = [(shards[0], "[first shard]"), (shards[-1], "[last shard]")] if shards else []
    for name in PUBLISHED:
        with contextlib.suppress(FileNotFoundError):
            times.append(((out / name).stat().st_mtime, f"[{name}]"))
    plans = [path.stat().st_mtime for path in out.glob("predict/*/plan-*.json")]
    return times + [(second, "[plan written]") for second in plans]


def show(seconds: float, events: list[tuple[float, str]], sampler: ProcessSampler) -> None:
    """Print the time line, with the CPU seconds that all processes have used by then."""
    print(f"{'second':>8} {'CPU s':>8} {'proc':>4}  event")
    for second, text in events:
        if re.match(r"\(.*pid=|\d{4}-.*INFO", text):  # lines of Ray's processes
            continue
        before = [state for state in sampler.states if state[0] <= second] or [(0.0, 0.0, 0)]
        print(f"{second:8.2f} {before[-1][1]:8.1f} {before[-1][2]:4d}  {text[:120]}")
    print(f"\n{'first':>8} {'last':>8} {'most':>4}  title of processes")
    for title, (first, last, most) in sorted(sampler.seen.items(), key=lambda item: item[1]):
        print(f"{first:8.2f} {last:8.2f} {most:4.0f}  {title}")
    totals = defaultdict[str, list[float]](list)
    for title, used in sampler.cpu.values():
        totals[title].append(used)
    print(f"\n{'CPU s':>8} {'proc':>4}  last title of processes")
    for title, values in sorted(totals.items(), key=lambda item: -sum(item[1])):
        print(f"{sum(values):8.1f} {len(values):4d}  {title}")
    print(f"{seconds:.1f} s in all")


def main() -> None:
    """Run the command and print its time line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with images in test/")
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", type=int, default=100_064)
    parser.add_argument("--linked", type=Path, help="folder for the links, kept; used if it exists")
    parser.add_argument("--out", type=Path, help="folder for the results, kept")
    parser.add_argument("rest", nargs="*", help="flags of the command, after --")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data, out = flags.linked or Path(scratch, "data"), flags.out or Path(scratch, "out")
        if not data.exists():
            folder = next(f for f in (flags.data / "test", flags.data) if f.exists())
            link(sorted(path.resolve() for path in folder.glob("*.jpg")), data, flags.pictures)
        command = [sys.executable, str(REPOSITORY / "jobs/predict.py"), "--data", str(data)]
        command += ["--model", flags.model, "--out", str(out), "--verbose", *flags.rest]
        seconds, events, sampler = run(command, out)
    show(seconds, events, sampler)
    marks = (
        (second, text) for second, text in reversed(events) if re.fullmatch(r"\[[a-z. ]+\]", text)
    )
    firsts = {text: round(second, 2) for second, text in marks}
    rate = [line for _, line in events if line.startswith('{"job"')]
    result = json.loads(rate[-1]) if rate else {}
    steady = result.get("images_per_second")
    print(json.dumps({"benchmark": "predict_timeline", "steady": steady, **firsts}))


if __name__ == "__main__":
    main()
