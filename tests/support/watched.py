"""Watches a prediction job from outside: its processes, its shards, the files that it opens.

Needs Linux: /proc lists the processes, inotify reports the files that are opened.
"""

import contextlib
import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.commands import REPOSITORY
from support.models import write_model
from support.pairs import draw_pair

from carvana_ray import images

JOB_S, START_S, END_S = 300, 120, 120  # to wait for a job, a start, and the processes of a dead job
POLL_S = 0.005  # shards appear about 30 ms apart
SIZE, DISTINCT = (320, 480), 200  # of the images; further names are links to the same files
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # these outlive a dead driver by a minute
Shards = dict[Path, tuple[int, int]]  # inode and modification time of each


class JobFailedError(AssertionError):
    """A job failed or hung; the message has everything that it printed."""


@dataclass(frozen=True)
class Setting:
    """The images and the model of all runs, and the submission of an undisturbed run."""

    root: Path
    names: tuple[str, ...]
    shard_size: int

    @property
    def clean(self) -> bytes:
        """The submission of the undisturbed run."""
        path = self.root / "clean" / "out" / "submission.csv"
        return path.read_bytes() if path.exists() else b""


class Job:
    """A prediction job as a command.

    All its processes, Ray's too, have a working folder of their own, which identifies them.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting = setting
        self.home = setting.root / name
        self.out = self.home / "out"
        self.raylets: list[int] = []  # of a cluster's nodes, without the head
        self.out.mkdir(parents=True)
        (self.home / "ray").mkdir()

    def start(self, address: str = "", workers: int = 1) -> None:
        """Start the command, or repeat it."""
        flags = {
            "--data": self.setting.root / "pictures",
            "--model": self.setting.root / "model",
            "--out": self.out,
            "--shard-size": self.setting.shard_size,
            "--device": "cpu",
            "--workers": workers,
            "--ray": "always",
            "--num-cpus": 3,  # with 2, Ray would let the actor itself read the images
        }
        words = [str(word) for flag in flags.items() for word in flag]
        command = [str(REPOSITORY / "jobs" / "predict.py"), *words, "--shared-filesystem"]
        self.process = self.spawn("job", command, RAY_ADDRESS=address)

    def spawn(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start Python in the job's folder, which also holds the files of its Ray session."""
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
                process_group=0,  # its own, for the Ctrl-C of a terminal
            )

    def result(self) -> dict[str, Any]:
        """Wait for the command to succeed; return its JSON object."""
        self.wait(lambda: self.process.poll() is not None, JOB_S, "the job to end")
        if self.process.returncode != 0:
            raise JobFailedError(f"exit code {self.process.returncode}{self.seen()}")
        return json.loads((self.home / "job.out").read_text().splitlines()[-1])

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until a condition holds; raise after the given seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise JobFailedError(f"waited {seconds} s for {what}{self.seen()}")
            time.sleep(POLL_S)

    def seen(self) -> str:
        """Return all output and the running processes, for the message of a failure."""
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
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if os.readlink(f"/proc/{number}/cwd") == str(self.home):
                    title = Path(f"/proc/{number}/cmdline").read_bytes()
                    found[int(number)] = title.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def is_quiet(self) -> bool:
        """Return whether no process is left that could write a shard."""
        return all(title in AGENTS for title in self.processes().values())

    def kill_all(self) -> None:
        """Kill all processes in the job's folder."""
        while left := self.processes():
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.05)

    def committed(self) -> Shards:
        """Return the shards on disk."""
        found = self.out.glob("predict/*/shards/*.parquet")
        return {path: ((status := path.stat()).st_ino, status.st_mtime_ns) for path in found}


class Opened:
    """Records the names that any process opens in a folder, by inotify."""

    OPEN, OVERFLOW = 0x20, 0x4000

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if libc.inotify_add_watch(self._handle, os.fsencode(folder), self.OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))

    def names(self) -> set[str]:
        """Return the names and end the watch."""
        found = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self._handle, 1 << 16)
                while data:
                    _, mask, _, length = struct.unpack_from("iIII", data)
                    if mask & self.OVERFLOW:
                        raise JobFailedError("more files were opened than inotify could report")
                    found.add(os.fsdecode(data[16 : 16 + length].rstrip(b"\0")))
                    data = data[16 + length :]
        os.close(self._handle)
        return found


def draw(root: Path, count: int, shard_size: int) -> Setting:
    """Draw images and make a model."""
    names = tuple(f"p{number:05d}.jpg" for number in range(count))
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


def make_model(folder: Path, jpegs: list[bytes]) -> None:
    """Write a model of random weights. Its masks cover a few percent of an image and all differ."""
    import torch

    from carvana_ray.unet.network import UNet, UNetConfig

    torch.manual_seed(4)
    network = UNet(base=4).eval()
    grays = [images.standardize(images.load_gray(data, 8)) for data in jpegs]
    with torch.no_grad():
        logits = network(torch.stack([torch.from_numpy(gray) for gray in grays])[:, None])
        weight, bias = network.head.parameters()
        bias.sub_(torch.quantile(logits.flatten()[::7], 0.9))
        for value in (weight, bias):
            value.mul_(20 / logits.std())  # steep edges: the last bit of a sum matters little
    write_model(
        folder,
        network,
        unet=UNetConfig(base=4, norm="batch"),
        height=SIZE[0],
        width=SIZE[1],
        holdout_cars=[],
        val_cars=[],
    )
