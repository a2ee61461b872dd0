"""Stop whole pipelines at random moments, many times, and compare each with an undisturbed one.

    cd tests && python -m support.pipeline_chaos --runs 20 --kills 40 --terms 20 --seed 0

The driver of each pipeline gets its part of the SIGKILLs and SIGTERMs, each at a time drawn between
the first second and the time that is left of a clean run. The same command is repeated at once,
while Ray's processes of the dead one may still be ending, until it succeeds. Then model,
evaluation.csv and submission must equal those of the clean run to the byte. A strike that comes
after the end of its pipeline is made up for in an extra one. ``--data drawn`` lets each pipeline
draw its own sample. The last line is JSON. Needs Linux: /proc lists the processes.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from support.commands import REPOSITORY, SMALL
from support.watched import END_S, Job, JobFailedError, Setting

from carvana_ray.errors import EXIT_INTERRUPTED, EXIT_OK
from carvana_ray.storage.base import TEMP_PREFIX

FLAGS = (*SMALL, "--epochs", 3, "--shard-size", 4, "--device", "cpu", "--num-cpus", 3)
DRAWN = ("--sample-cars", 6, "--sample-test-cars", 2)
RESULTS = ("submission.csv", "evaluation.csv", "model/model.pt")
CODES = {"KILL": -signal.SIGKILL, "TERM": EXIT_INTERRUPTED}
FIRST_S = 1.0  # of a strike after the start of a command
PIPELINE_S, POLL_S = 900, 0.02
STEP = re.compile(r"^(\w[\w ]*): ", re.MULTILINE)  # a line of a job or of its progress
STEPS = ("start", "pipeline", "sample", "draw", "train", "decode", "evaluate", "predict", "review")


@dataclass(frozen=True)
class Attempt:
    """One command of a pipeline: its end, and in seconds, its length and its first line."""

    code: int
    seconds: float
    first_line: float | None  # None if it was stopped before
    strike: str = ""  # "KILL" or "TERM"; "" if it ended first
    step: str = ""  # the one that was struck

    @property
    def expected(self) -> bool:
        """Whether the exit code is that of the strike, or of success without one."""
        return self.code == CODES.get(self.strike, EXIT_OK)


@dataclass
class Outcome:
    """A pipeline that was stopped several times: all but the first three should be 0."""

    attempts: list[Attempt] = field(repr=False)
    missed: list[str] = field(repr=False)  # strikes that came after the end
    lost: int = 0
    doubled: int = 0
    differ: int = 0  # files of RESULTS
    wrong_codes: int = 0
    late: int = 0  # attempts whose first line took longer than allowed
    drafts: int = 0
    processes: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """The counts that should be 0."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.faults.values())


class Pipelines:
    """Runs pipelines below a folder and compares them with the first one.

    Args:
        root: the folder.
        data: value of --data, "" to draw a sample.
        within: seconds more than the clean run after which a repeated command says what it does.
    """

    def __init__(self, root: Path, data: str, within: float) -> None:
        self._setting = Setting(root.resolve(), (), 0)
        self._flags = (*FLAGS, *(("--data", data) if data else DRAWN))
        self._within = within
        self.clean_s, self.start_s = 0.0, 0.0  # of the clean run, and until its first line

    @property
    def clean(self) -> Path:
        """The results of the undisturbed pipeline."""
        return self._setting.root / "clean" / "out"

    def run_clean(self) -> None:
        """Run the undisturbed pipeline."""
        job = Job(self._setting, "clean")
        try:
            attempt = self._attempt(job)
            if attempt.code != EXIT_OK:
                raise JobFailedError(f"exit code {attempt.code}{job.seen()}")
        finally:
            job.kill_all()
        self.clean_s, self.start_s = attempt.seconds, attempt.first_line or 0.0

    def run(self, name: str, strikes: Sequence[str], seed: int) -> Outcome:
        """Run a pipeline, strike its driver, repeat it, and compare its results."""
        job, rng = Job(self._setting, name), random.Random(seed)
        attempts: list[Attempt] = []
        try:
            for strike in strikes:
                done = sum(max(a.seconds - self.start_s, 0) for a in attempts)
                after = rng.uniform(FIRST_S, max(self.clean_s - done, 2 * self.start_s))
                attempts.append(self._attempt(job, strike, after))
                if not attempts[-1].strike:
                    break
            else:
                attempts.append(self._attempt(job))
            missed = list(strikes[sum(bool(a.strike) for a in attempts) :])
            outcome = compare(self.clean, job.out, attempts, self.start_s + self._within)
            outcome.missed = missed
            deadline = time.monotonic() + END_S
            while (left_over := job.processes()) and time.monotonic() < deadline:
                time.sleep(0.2)
            outcome.processes = len(left_over)
            if outcome.wrong_codes:
                print(job.seen(), file=sys.stderr)
            return outcome
        finally:
            job.kill_all()

    def _attempt(self, job: Job, strike: str = "", after: float = 0.0) -> Attempt:
        """Run the command once; send a signal after some seconds if it still runs then."""
        log = job.home / "job.err"
        start = log.stat().st_size if log.exists() else 0
        command = [str(REPOSITORY / "jobs" / "pipeline.py"), "--out", str(job.out)]
        began, first, step = time.monotonic(), None, ""
        job.process = job.spawn("job", [*command, *map(str, self._flags)])
        while job.process.poll() is None:
            now = time.monotonic() - began
            words = STEP.findall(log.read_bytes()[start:].decode(errors="replace"))
            steps = [word for word in words if word in STEPS]
            if steps and first is None:
                first = now
            if strike and not step and now >= after:
                job.process.send_signal(signal.Signals[f"SIG{strike}"])
                step = steps[-1] if steps else "start"
            if now > PIPELINE_S:
                raise JobFailedError(f"a pipeline took more than {PIPELINE_S} s{job.seen()}")
            time.sleep(POLL_S)
        code = job.process.returncode
        struck = strike if step and code != EXIT_OK else ""  # it may end while it is being struck
        return Attempt(code, time.monotonic() - began, first, struck, step)


def compare(clean: Path, out: Path, attempts: list[Attempt], within: float) -> Outcome:
    """Return what is wrong with the results of a pipeline and with the ends of its commands."""
    rows, expected = (_rows(folder / "submission.csv") for folder in (out, clean))
    return Outcome(
        attempts=attempts,
        missed=[],
        lost=len(set(expected) - set(rows)),
        doubled=sum(rows.values()) - len(rows),
        differ=sum(_content(out / name) != _content(clean / name) for name in RESULTS),
        wrong_codes=sum(not attempt.expected for attempt in attempts),
        late=sum((attempt.first_line or 0) > within for attempt in attempts[1:]),
        drafts=sum(1 for _ in out.rglob(f"{TEMP_PREFIX}*")),
    )


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _rows(path: Path) -> Counter[str]:
    return Counter(line.split(",")[0] for line in _content(path).decode().splitlines()[1:])


def deal(kills: int, terms: int, runs: int, rng: random.Random) -> list[list[str]]:
    """Return the strikes of each run, in random order, as evenly spread as possible."""
    strikes = ["KILL"] * kills + ["TERM"] * terms
    rng.shuffle(strikes)
    return [strikes[run::runs] for run in range(runs)]


def run_all(
    pipelines: Pipelines, dealt: list[list[str]], seed: int, jobs: int
) -> tuple[list[Outcome], int]:
    """Run pipelines, `jobs` at a time, and extra ones for missed strikes; count the failed ones."""
    outcomes: list[Outcome] = []
    failed = 0

    def run(number: int, strikes: list[str]) -> Outcome | None:
        try:
            outcome = pipelines.run(f"run-{number}", strikes, seed * 10_000 + number)
        except JobFailedError as error:
            print(f"{number:3d} FAILED: {error}", flush=True)
            return None
        print(f"{number:3d} {_told(outcome)}", flush=True)
        return outcome

    started = 0
    while dealt:
        with ThreadPoolExecutor(jobs) as pool:
            done = list(pool.map(run, range(started, started + len(dealt)), dealt))
        started += len(dealt)
        good = [outcome for outcome in done if outcome]
        failed += len(done) - len(good)
        outcomes += good
        missed = [strike for outcome in good for strike in outcome.missed]
        dealt = [missed[start : start + 3] for start in range(0, len(missed), 3)]
    return outcomes, failed


def _told(outcome: Outcome) -> str:
    ends = ", ".join(
        f"{a.strike or 'end'} {a.step and 'in ' + a.step + ' '}{a.seconds:.1f} s -> {a.code}"
        for a in outcome.attempts
    )
    wrong = {name: value for name, value in outcome.faults.items() if value}
    return f"{'good' if outcome.good else wrong}: {ends}"


def summarize(outcomes: list[Outcome], failed: int) -> dict[str, object]:
    """Print a table of the strikes by step; return the sums over all pipelines."""
    attempts = [attempt for outcome in outcomes for attempt in outcome.attempts]
    struck = Counter((a.step, a.strike) for a in attempts if a.strike)
    print(f"{'step':10}" + "".join(f"{strike:>6}" for strike in CODES))
    for step in STEPS:
        print(f"{step:10}" + "".join(f"{struck[step, strike]:6d}" for strike in CODES))
    firsts = [
        attempt.first_line
        for outcome in outcomes
        for attempt in outcome.attempts[1:]
        if attempt.first_line
    ]
    faults = Counter[str]()
    for outcome in outcomes:
        faults.update(outcome.faults)
    return {
        "pipelines": len(outcomes),
        **{strike: sum(a.strike == strike for a in attempts) for strike in CODES},
        "identical": sum(not outcome.differ for outcome in outcomes),
        **faults,
        "failed": failed,
        "first_line_s": [round(value, 1) for value in (min(firsts), max(firsts))] if firsts else [],
    }


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="pipelines at a time")
    parser.add_argument("--data", default="drawn", help="a folder in Kaggle's layout, or drawn")
    parser.add_argument(
        "--within", type=float, default=10, help="seconds more than the clean run to a first line"
    )
    flags = parser.parse_args()
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="pc-"))  # short: Ray makes sockets below it
    data = "" if flags.data == "drawn" else str(Path(flags.data).resolve())
    pipelines = Pipelines(root, data, flags.within)
    pipelines.run_clean()
    clean = f"{pipelines.clean_s:.1f} s, first line after {pipelines.start_s:.1f} s"
    print(f"clean pipeline: {clean}", flush=True)
    dealt = deal(flags.kills, flags.terms, flags.runs, random.Random(flags.seed))
    outcomes, failed = run_all(pipelines, dealt, flags.seed, flags.jobs)
    summary = summarize(outcomes, failed)
    good = not failed and all(outcome.good for outcome in outcomes)
    if good:
        shutil.rmtree(root)
    else:
        print(f"all files are in {root}", file=sys.stderr)
    seconds = {"clean": round(pipelines.clean_s, 1), "all": round(time.monotonic() - began)}
    print(json.dumps({"good": good, **summary, "seconds": seconds}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
