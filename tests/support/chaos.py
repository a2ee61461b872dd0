"""Kill a part of a prediction job at a random moment, many times, and count the damage.

    cd tests && python -m support.chaos --runs 20 --seed 0

After one undisturbed run, each run loses one part, of each kind in turn:

    driver   the process of jobs/predict.py; then the same command is repeated
    worker   a process that reads images or writes shards; the job must continue by itself
    actor    the process that holds the network; likewise
    raylet   a machine: one of three Ray nodes on this one, not the head; likewise

The submission must always equal that of the undisturbed run to the byte, and no finished shard may
be made twice. Needs Linux: /proc lists the processes, inotify reports the files that are opened.
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
    Job,
    JobFailedError,
    Opened,
    Setting,
    Shards,
    draw,
)

from carvana_ray import storage
from carvana_ray.report import figures as sheets

KINDS = ("driver", "worker", "actor", "raylet")
PATIENCE_S = 1.0  # to wait for each title of LATE before the next one is accepted
NODES = 3

# Titles of the processes to kill, best first; for a raylet, the title that must exist. Half of the
# runs lose a process early: all images are read, and most masks predicted, before the first shard.
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
NOT_AT_ONCE = 0.97  # chance to wait a little longer, at each look for an early one
FAULTS = ("lost", "doubled", "foreign", "shards_redone", "pictures_read_again")
SUMMED = (*FAULTS, "identical")


@dataclass(frozen=True)
class Outcome:
    """The damage of one kill: all but `identical`, `victim` and `shards_at_kill` should be 0."""

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
        """Whether there is no damage."""
        return self.identical and not any(getattr(self, name) for name in FAULTS)


def prepare(root: Path, images: int, shard_size: int) -> Setting:
    """Draw images, make a model, and predict once undisturbed."""
    setting = draw(root, images, shard_size)
    job = Job(setting, "clean")
    try:
        job.start()
        job.result()
    finally:
        job.kill_all()
    masks = {line.split(",")[1] for line in setting.clean.decode().splitlines()[1:]}
    if "" in masks or len(masks) < 0.9 * min(DISTINCT, images):
        raise JobFailedError("masks too similar: swapped rows would not be noticed")
    return setting


def run_once(setting: Setting, kind: str, seed: int) -> Outcome:
    """Run the job, kill a part of it, wait for its end, and compare with the undisturbed run."""
    job = Job(setting, f"{kind}-{seed}")
    read_again = 0
    try:
        if kind == "raylet":
            # A replica for each node, or fewer with more CPUs each: the rest must be enough.
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
    """Kill a process of a running job; return its title and the shards on disk at that time."""
    after = rng.randint(1, len(job.setting.names) // job.setting.shard_size * 3 // 4)
    early = kind in EARLY and rng.random() < 0.5
    ready = 0.0
    deadline = time.monotonic() + JOB_S
    while (now := time.monotonic()) < deadline:
        if job.process.poll() is not None:
            raise JobFailedError(f"the job ended before a part of it could be killed{job.seen()}")
        kept = job.committed()
        if early or len(kept) >= after:
            ready = ready or now
            victims = _victims(job, kind, early, now - ready)
            if victims and not (early and rng.random() < NOT_AT_ONCE):
                victim = rng.choice(victims)
                title = job.processes().get(victim, "")
                os.kill(victim, signal.SIGKILL)
                return title.split(" -")[
                    0
                ], kept  # processes that Ray has not named have long titles
        time.sleep(POLL_S)
    raise JobFailedError(f"nothing to kill for {JOB_S} s{job.seen()}")


def _victims(job: Job, kind: str, early: bool, waited: float) -> list[int]:
    """Return the processes that may be killed, `waited` seconds after the first chance."""
    if kind == "driver":
        return [job.process.pid]
    alive = job.processes()
    for title in EARLY[kind] if early else LATE[kind][: 1 + int(waited / PATIENCE_S)]:
        if fitting := sorted(number for number, name in alive.items() if name.startswith(title)):
            return job.raylets if kind == "raylet" else fitting
    return []


def _again(job: Job, kept: Shards) -> int:
    """Repeat a job whose driver has died; return how many images were read a second time."""
    done = {
        name for path in kept for name in pq.read_table(path, columns=["img"])["img"].to_pylist()
    }
    rest = set(job.setting.names) - done
    opened = Opened(job.setting.root / "pictures")
    job.start()
    result = job.result()
    starts = re.findall(
        r"^predict: starting, ([\d,]+) image", (job.home / "job.err").read_text(), re.MULTILINE
    )
    if result["resumed_shards"] != len(kept) or (
        rest and int(starts[-1].replace(",", "")) != len(rest)
    ):
        raise JobFailedError(f"{len(kept)} shards on disk, {len(rest)} images left: {job.seen()}")
    names = opened.names()
    if not rest <= names:
        raise JobFailedError(f"pending images that were not opened: {len(rest - names)}")
    # Contact sheets and report open images of finished shards, too.
    part = json.loads((job.out / "report" / "predict.json").read_text())
    figures = {one["name"] for one in part["review"]["figures"] + part["shown"]}
    return len((names & done) - set(job.setting.names[: sheets.SHEET_CARS]) - figures)


def compare(job: Job, victim: str, kept: Shards, read_again: int) -> Outcome:
    """Return the damage in the results of a run."""
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
    """Start a cluster and the job on it."""
    place = job.home / "cluster.json"
    job.spawn("cluster", [__file__, "--serve-cluster", str(place)])
    job.wait(place.exists, START_S, "a cluster")
    cluster = json.loads(place.read_text())
    job.raylets = cluster["raylets"]
    job.start(cluster["address"], workers=workers)


def serve_cluster(place: str) -> None:
    """Start a cluster of `NODES` on this machine, write its address, and stay until killed."""
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
            raylet.poll()  # without a poll a dead one stays a zombie, with its workers


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--serve-cluster", metavar="FILE", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve_cluster:
        serve_cluster(flags.serve_cluster)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: Ray makes sockets below it
    setting = prepare(root, flags.images, flags.shard_size)
    print(f"clean run: {len(setting.names)} rows, {time.monotonic() - began:.0f} s", flush=True)
    outcomes = []
    for run in range(flags.runs):
        kind, started = KINDS[run % len(KINDS)], time.monotonic()
        try:
            outcome = run_once(setting, kind, flags.seed * flags.runs + run)
            outcomes.append(outcome)
            said = json.dumps(asdict(outcome))
        except JobFailedError as error:
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
