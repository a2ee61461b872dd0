"""Kill a prediction job at a random moment, many times over, and count what that cost.

    cd tests && python -m support.chaos --runs 20 --seed 0

After one clean run each run dies once, of one cause after the other:

    driver   the process of jobs/predict.py; then the same command is started again
    worker   a process that reads pictures or writes shards; the job must go on by itself
    actor    the process that holds the network; the same
    raylet   a machine: one of three Ray nodes on this one, not the head; the same

Whatever died, the submission must be the clean run's to the byte, and nothing that was done may be
done again. Needs Linux: /proc tells whom to kill, inotify who opens a picture.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from support.watched import (
    DISTINCT,
    END_S,
    JOB_S,
    POLL_S,
    START_S,
    Failed,
    Job,
    Opened,
    Setting,
    Shards,
    draw,
)

from carvana_ray import storage
from carvana_ray.report import figures as sheets

KINDS = ("driver", "worker", "actor", "raylet")
PATIENCE_S = 1.0  # with each title of LATE before the next one will do
NODES = 3

# Whom to kill, by the titles that Ray gives its processes, the best first; a raylet when there is
# such a process. One half dies early: all pictures are read, and most masks made, before the first
# shard is there.
EARLY = {
    "worker": ("ray::MapBatches(read_images",),
    "actor": ("ray::MapWorker(",),
    "raylet": ("ray::MapBatches(read_images",),
}
LATE = {
    "worker": ("ray::MapBatches(", "ray::IDLE"),
    "actor": ("ray::MapWorker(",),
    "raylet": ("ray::MapWorker(",),
}
NOT_AT_ONCE = 0.97  # chance to let an early one live a little longer, at each look
FAULTS = ("lost", "doubled", "foreign", "shards_redone", "pictures_read_again")
SUMMED = (*FAULTS, "identical")


@dataclass(frozen=True)
class Outcome:
    """What one death cost; all but `identical`, `victim` and `shards_at_kill` should be 0."""

    victim: str
    shards_at_kill: int
    lost: int
    doubled: int
    foreign: int
    shards_redone: int
    pictures_read_again: int
    identical: bool

    @property
    def good(self) -> bool:
        """Whether it cost nothing."""
        return self.identical and not any(getattr(self, name) for name in FAULTS)


def prepare(root: Path, pictures: int, shard_size: int) -> Setting:
    """Draw pictures, make a model, and predict once without a death."""
    setting = draw(root, pictures, shard_size)
    job = Job(setting, "clean")
    try:
        job.start()
        job.result()
    finally:
        job.kill_all()
    masks = {line.split(",")[1] for line in setting.clean.decode().splitlines()[1:]}
    if "" in masks or len(masks) < 0.9 * min(DISTINCT, pictures):
        raise Failed("masks too much alike: rows that change places would not be seen")
    return setting


def run_once(setting: Setting, kind: str, seed: int) -> Outcome:
    """Run the job, kill a part of it, see it through, and compare with the clean run."""
    job = Job(setting, f"{kind}-{seed}")
    read_again = 0
    try:
        if kind == "raylet":
            # A replica for each node, or fewer that take more CPUs each: what is left must do.
            _join_cluster(job, workers=NODES - seed // len(KINDS) % 2)
        else:
            job.start()
        victim, kept = _strike(job, kind, random.Random(seed))
        if kind == "driver":
            job.wait(job.is_quiet, END_S, "the processes of a dead driver to end")
            kept = job.committed()
            read_again = _again(job, kept)
        job.result()
        if kind != "raylet":
            job.wait(job.is_quiet, END_S, "all processes of the job to end")
        return compare(job, victim, kept, read_again)
    finally:
        job.kill_all()


def _strike(job: Job, kind: str, rng: random.Random) -> tuple[str, Shards]:
    """Kill a process of a job that runs; return its title and the shards that were there."""
    after = rng.randint(1, len(job.setting.names) // job.setting.shard_size * 3 // 4)
    early = kind in EARLY and rng.random() < 0.5
    ready = 0.0
    deadline = time.monotonic() + JOB_S
    while (now := time.monotonic()) < deadline:
        if job.process.poll() is not None:
            raise Failed(f"the job ended before a part of it could be killed{job.seen()}")
        kept = job.committed()
        if early or len(kept) >= after:
            ready = ready or now
            victims = _victims(job, kind, early, now - ready)
            if victims and not (early and rng.random() < NOT_AT_ONCE):
                victim = rng.choice(victims)
                title = job.processes().get(victim, "")
                os.kill(victim, signal.SIGKILL)
                return title.split(" -")[0], kept  # those that Ray has not named have long ones
        time.sleep(POLL_S)
    raise Failed(f"nothing to kill for {JOB_S} s{job.seen()}")


def _victims(job: Job, kind: str, early: bool, waited: float) -> list[int]:
    """Return the processes that may be killed, `waited` seconds after any might have been."""
    if kind == "driver":
        return [job.process.pid]
    alive = job.processes()
    for title in EARLY[kind] if early else LATE[kind][: 1 + int(waited / PATIENCE_S)]:
        if fitting := sorted(number for number, name in alive.items() if name.startswith(title)):
            return job.raylets if kind == "raylet" else fitting
    return []


def _again(job: Job, kept: Shards) -> int:
    """Run a job again whose driver has died; return how many pictures were read a second time."""
    done = {
        name for path in kept for name in pq.read_table(path, columns=["img"])["img"].to_pylist()
    }
    rest = set(job.setting.names) - done
    opened = Opened(job.setting.root / "pictures")
    job.start()
    result = job.result()
    said = re.findall(r"^predict: (\d+) pictures", (job.home / "job.err").read_text(), re.MULTILINE)
    if result["resumed_shards"] != len(kept) or (rest and int(said[-1]) != len(rest)):
        raise Failed(f"{len(kept)} shards were there, {len(rest)} pictures left: {job.seen()}")
    names = opened.names()
    if not rest <= names:
        raise Failed(f"pictures to do that were not seen to be opened: {len(rest - names)}")
    # The contact sheets show the first pictures, whoever predicted them, and the report some more.
    part = json.loads((job.out / "report" / "predict.json").read_text())
    figures = {one["name"] for one in part["review"]["figures"] + part["shown"]}
    return len((names & done) - set(job.setting.names[: sheets.SHEET_CARS]) - figures)


def compare(job: Job, victim: str, kept: Shards, read_again: int) -> Outcome:
    """Return what is wrong with the results of a run, in numbers."""
    now = job.committed()
    text = (job.out / "submission.csv").read_bytes()
    rows = Counter(line.split(",")[0] for line in text.decode().splitlines()[1:])
    names = set(job.setting.names)
    return Outcome(
        victim=victim,
        shards_at_kill=len(kept),
        lost=len(names - set(rows)),
        doubled=sum(count - 1 for count in rows.values()),
        foreign=len(set(rows) - names),
        shards_redone=sum(now.get(path) != status for path, status in kept.items()),
        pictures_read_again=read_again,
        identical=text == job.setting.clean,
    )


def _join_cluster(job: Job, workers: int) -> None:
    """Start a cluster, and the job on it."""
    place = job.home / "cluster.json"
    job.spawn("cluster", [__file__, "--serve-cluster", str(place)])
    job.wait(place.exists, START_S, "a cluster")
    cluster = json.loads(place.read_text())
    job.raylets = cluster["raylets"]
    job.start(cluster["address"], workers=workers)


def serve_cluster(place: str) -> None:
    """Start a cluster of `NODES` on this machine, write where it is, and stay until killed."""
    from ray.cluster_utils import Cluster

    of_each: dict[str, Any] = {"num_cpus": 3, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=of_each)
    nodes = [cluster.add_node(num_cpus=3) for _ in range(NODES - 1)]
    raylets = [node.all_processes["raylet"][0].process for node in nodes]
    known = {"address": cluster.address, "raylets": [raylet.pid for raylet in raylets]}
    storage.write_atomic(place, json.dumps(known).encode())
    while True:
        time.sleep(0.05)
        for raylet in raylets:
            raylet.poll()  # a dead one that nobody asks for stays a zombie, and its workers with it


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--serve-cluster", metavar="FILE", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve_cluster:
        serve_cluster(flags.serve_cluster)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: Ray makes sockets below it
    setting = prepare(root, flags.pictures, flags.shard_size)
    print(f"clean run: {len(setting.names)} rows, {time.monotonic() - began:.0f} s", flush=True)
    outcomes = []
    for run in range(flags.runs):
        kind, started = KINDS[run % len(KINDS)], time.monotonic()
        try:
            outcome = run_once(setting, kind, flags.seed * flags.runs + run)
            outcomes.append(outcome)
            said = json.dumps(asdict(outcome))
        except Failed as error:
            said = f"FAILED: {error}"
        print(f"{run:2d} {kind:6s} {time.monotonic() - started:5.1f} s {said}", flush=True)
    good = len(outcomes) == flags.runs and all(outcome.good for outcome in outcomes)
    summary = {name: sum(getattr(outcome, name) for outcome in outcomes) for name in SUMMED}
    seconds = round(time.monotonic() - began)
    failed = flags.runs - len(outcomes)
    print(json.dumps({"runs": flags.runs, **summary, "failed": failed, "seconds": seconds}))
    if good:
        shutil.rmtree(root)
    else:
        print(f"all files are in {root}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
