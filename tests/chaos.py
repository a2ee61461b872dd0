"""Kill a prediction job at a random moment, many times over, and count what that cost.

    python tests/chaos.py --runs 20 --seed 0

After one clean run each run dies once, of one cause after the other:

    driver   the process of jobs/predict.py; then the same command is started again
    worker   a process that reads pictures or writes shards; the job must go on by itself
    actor    the process that holds the network; the same
    raylet   a machine: one of three Ray nodes on this one, not the head; the same

Whatever died, the submission must be the clean run's to the byte, and nothing that was done may be
done again. Needs Linux: /proc tells whom to kill, inotify who opens a picture.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from conftest import REPOSITORY, draw_pair

from carvana_ray import checkpoint, images, sheets, storage

KINDS = ("driver", "worker", "actor", "raylet")
JOB_S, START_S, END_S = 300, 120, 60  # for a job, for a start, for what a dead job leaves
POLL_S = 0.005  # shards come about 30 ms apart
PATIENCE_S = 1.0  # with each title of LATE before the next one will do
NODES = 3
SIZE, DISTINCT = (320, 480), 200  # of the pictures; names beyond these are links to the same files

# Whom to kill, by the titles that Ray gives its processes, the best first; a raylet when there is
# such a process. One half dies early: all pictures are read, and most masks made, before the first
# shard is there.
EARLY = {
    "worker": ("ray::MapBatches(load_pictures",),
    "actor": ("ray::MapWorker(",),
    "raylet": ("ray::MapBatches(load_pictures",),
}
LATE = {
    "worker": ("ray::MapBatches(", "ray::IDLE"),
    "actor": ("ray::MapWorker(",),
    "raylet": ("ray::MapWorker(",),
}
NOT_AT_ONCE = 0.97  # chance to let an early one live a little longer, at each look
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # outlive a dead driver by a minute
FAULTS = ("lost", "doubled", "foreign", "shards_redone", "pictures_read_again")
SUMMED = (*FAULTS, "identical")
Shards = dict[Path, tuple[int, int]]  # inode and time of the last change of each


class Failed(AssertionError):
    """A run that did not end as it should; with all that it printed."""


@dataclass(frozen=True)
class Setting:
    """What all runs share: pictures, a model, and the submission of a run that nobody killed."""

    root: Path
    names: tuple[str, ...]
    shard_size: int

    @property
    def clean(self) -> bytes:
        """The submission to compare with."""
        path = self.root / "clean" / "out" / "submission.csv"
        return path.read_bytes() if path.exists() else b""


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


class Job:
    """A prediction as a command. All its processes, Ray's too, work in a folder of its own, which
    is how they are told from those of other jobs."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting = setting
        self.home = setting.root / name
        self.out = self.home / "out"
        self.raylets: list[int] = []  # of a cluster's nodes, but for the head
        self.out.mkdir(parents=True)
        (self.home / "ray").mkdir()

    def start(self, address: str = "", workers: int = 1) -> None:
        """Start the command, or start it again."""
        flags = {
            "--data": self.setting.root / "pictures",
            "--model": self.setting.root / "model",
            "--out": self.out,
            "--shard-size": self.setting.shard_size,
            "--device": "cpu",
            "--workers": workers,
            "--num-cpus": 3,  # with 2, Ray would let the actor itself read the pictures
        }
        words = [str(word) for flag in flags.items() for word in flag]
        command = [str(REPOSITORY / "jobs" / "predict.py"), *words]
        self.process = self.spawn("job", command, RAY_ADDRESS=address)

    def spawn(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start Python in the job's folder, where a Ray that it starts has its files."""
        ours = {"RAY_TMPDIR": str(self.home / "ray"), "RAY_AUTH_MODE": "disabled", **environment}
        with (
            (self.home / f"{name}.out").open("ab") as out,
            (self.home / f"{name}.err").open("ab") as err,
        ):
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=self.home,
                env={**os.environ, **ours},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the command, which must end, and well."""
        self.wait(lambda: self.process.poll() is not None, JOB_S, "the job to end")
        if self.process.returncode != 0:
            raise Failed(f"exit code {self.process.returncode}{self.seen()}")
        return json.loads((self.home / "job.out").read_text().splitlines()[-1])

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until a condition holds; too long a wait is a failure."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(f"waited {seconds} s for {what}{self.seen()}")
            time.sleep(POLL_S)

    def seen(self) -> str:
        """Return what a failure should show: all output, and the processes that live."""
        texts = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}"
            for path in sorted(self.home.glob("*.*"))
        ]
        alive = "\n".join(f"{number} {title[:80]}" for number, title in self.processes().items())
        return "\n".join(["", *texts, f"--- processes\n{alive}"])

    def processes(self) -> dict[int, str]:
        """Return the titles of the job's processes by id."""
        found = {}
        for number in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has ended since, or is another user's
                if os.readlink(f"/proc/{number}/cwd") == str(self.home):
                    title = Path(f"/proc/{number}/cmdline").read_bytes()
                    found[int(number)] = title.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def is_quiet(self) -> bool:
        """Return whether nobody is left who could write a shard."""
        return all(title in AGENTS for title in self.processes().values())

    def kill_all(self) -> None:
        """End whatever still runs in the job's folder."""
        while left := self.processes():
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.05)

    def committed(self) -> Shards:
        """Return the shards that are there."""
        found = self.out.glob("predict/*/shards/*.parquet")
        return {path: ((status := path.stat()).st_ino, status.st_mtime_ns) for path in found}


class Opened:
    """The names that any process opens in a folder, told by the kernel."""

    OPEN, OVERFLOW = 0x20, 0x4000

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if libc.inotify_add_watch(self._handle, os.fsencode(folder), self.OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))

    def names(self) -> set[str]:
        """Return them, and end the watch."""
        found = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self._handle, 1 << 16)
                while data:
                    _, mask, _, length = struct.unpack_from("iIII", data)
                    if mask & self.OVERFLOW:
                        raise Failed("more files were opened than the kernel could tell")
                    found.add(os.fsdecode(data[16 : 16 + length].rstrip(b"\0")))
                    data = data[16 + length :]
        os.close(self._handle)
        return found


def draw(root: Path, pictures: int, shard_size: int) -> Setting:
    """Draw pictures and make a model."""
    names = tuple(f"p{number:05d}.jpg" for number in range(pictures))
    setting = Setting(root.resolve(), names, shard_size)
    folder = setting.root / "pictures"
    folder.mkdir()
    for number, name in enumerate(names):
        if number < DISTINCT:
            (folder / name).write_bytes(draw_pair(number, SIZE)[0])
        else:
            os.link(folder / names[number % DISTINCT], folder / name)
    make_model(setting.root / "model", [(folder / name).read_bytes() for name in names[:40]])
    return setting


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


def make_model(folder: Path, pictures: list[bytes]) -> None:
    """Write a model of random weights whose masks are a few percent of a picture, all different."""
    import torch

    from carvana_ray.unet import UNet

    torch.manual_seed(4)
    network = UNet(base=4).eval()
    grays = [images.standardize(images.load_gray(data, 8)) for data in pictures]
    with torch.no_grad():
        logits = network(torch.stack([torch.from_numpy(gray) for gray in grays])[:, None])
        weight, bias = network.head.parameters()
        bias.sub_(torch.quantile(logits.flatten()[::7], 0.9))
        for value in (weight, bias):
            value.mul_(20 / logits.std())  # steep edges: little hangs on the last bit of a sum
    weights = checkpoint.to_bytes(dict(network.state_dict()))
    manifest = checkpoint.Manifest(
        sha256=checkpoint.digest(weights),
        base=4,
        norm="batch",
        downscale=8,
        height=SIZE[0],
        width=SIZE[1],
        training={},
        run="chaos",
        holdout_cars=[],
        val_cars=[],
        metrics={},
    )
    checkpoint.write_model(str(folder), weights, manifest, [])


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
    # The contact sheets show the first pictures, whoever predicted them.
    return len((names & done) - set(job.setting.names[: sheets.CARS]))


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
    storage.publish(place, json.dumps(known).encode())
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
