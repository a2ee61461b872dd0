"""A real Ray cluster of several nodes on this machine, as `ray up` would start it, and a shell
outside it.

A head without CPUs and nodes that do the work, each by `ray start` with a home, a folder for
temporary files and ports of its own, so that they share nothing but the store that the variables
they are given name. The token of the cluster lies in the home of each node, as `ray up` puts it
there; the shell outside has it in another place. Jobs come by `ray job submit` from a copy of what
git would give.

All processes of a node work in its folder, which is how they are found and killed. Needs Linux.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
UPLOADED = ("jobs", "carvana_ray", "requirements.txt", "pyproject.toml")
START_S, JOB_S, POLL_S = 120, 420, 0.1
STORE_BYTES = 150_000_000
LAUNCHER_CONFIG = "ray_bootstrap_config.yaml"  # `ray up` leaves it in the head's home
LOOPBACK = "127.0.0.1"
Done = subprocess.CompletedProcess[str]

# Prints where the program comes from, for the driver and for a task on each node.
WHERE = """
import json, os, time
import carvana_ray, ray

def here(_=0):
    time.sleep(1)  # so that one node does not take all
    return ray.get_runtime_context().get_node_id(), os.path.dirname(carvana_ray.__file__)

ray.init(log_to_driver=False)
nodes = sum(node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes())
spread = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(here)
found = dict(ray.get([spread.remote(n) for n in range(4 * nodes)]))
print(json.dumps({"driver": here()[1], "tasks": found}))
"""


class ClusterError(AssertionError):
    """Something did not come in time; with what was printed meanwhile."""


@dataclass(frozen=True)
class Node:
    """What one machine would be: a folder that all its processes work in."""

    folder: Path
    start: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """Return the ids of its processes."""
        return [number for number, place in _places() if place.is_relative_to(self.folder)]

    def kill(self) -> None:
        """End it as a power cut would: all its processes at once, none of which tells of it."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            self._signal(number)
        while self.processes():
            self._signal(signal.SIGKILL)
            time.sleep(0.02)
        self.start.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def said(self) -> str:
        """Return what `ray start` printed."""
        return (self.folder / "start.log").read_text(errors="replace")


@dataclass(frozen=True)
class Job:
    """`ray job submit` that runs in the shell outside."""

    id: str
    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace")

    def done(self, seconds: float = JOB_S) -> Done:
        """Return it when it has ended."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{self.id} still runs after {seconds} s\n{self.text()}") from error
        return subprocess.CompletedProcess(self.process.args, code, self.text(), "")


@dataclass
class Cluster:
    """A cluster that runs, seen from a shell outside it.

    Attributes:
        root: of all its folders.
        environment: of the shell: the address of the dashboard and where the token is.
        given: variables that all nodes get, as a machine's role would give them keys.
        head, nodes: its machines.
    """

    root: Path
    token: str
    gcs: str
    environment: dict[str, str]
    given: dict[str, str]
    nodes: list[Node] = field(default_factory=list)
    made: int = 0

    @property
    def address(self) -> str:
        """That of the dashboard."""
        return self.environment["RAY_ADDRESS"]

    @property
    def upload(self) -> Path:
        """The copy of the repository that jobs are submitted from."""
        return self.root / "upload"

    def start(self, *command: object, **environment: str) -> Job:
        """Submit a job (a file of the repository and its flags); do not wait for its end.

        Args:
            command: the file and its flags.
            environment: of the shell, besides its own; an empty one is taken away.
        """
        self.made += 1
        name = f"job-{self.made}"
        log = self.root / "shell" / f"{name}.log"
        words = ["--working-dir", ".", "--submission-id", name, "--", "python", *map(str, command)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*RAY, "job", "submit", *words],
                cwd=self.upload,
                env=self._shell(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return Job(name, process, log)

    def submit(self, *command: object, **environment: str) -> Done:
        """Submit a job and wait for its end; all that is printed is in `stdout`."""
        return self.start(*command, **environment).done()

    def shell(self, *command: str, **environment: str) -> Done:
        """Run a command in the shell outside, in the copy of the repository."""
        return subprocess.run(
            command,
            cwd=self.upload,
            env=self._shell(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=JOB_S,
            check=False,
        )

    def logs(self, job: str) -> str:
        """Return the log of a job, as `ray job logs` shows it."""
        done = self.shell(*RAY, "job", "logs", job)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self, job: str) -> Done:
        """Run `ray job stop`, which waits for the end of the job."""
        return self.shell(*RAY, "job", "stop", job)

    def job(self, job: str) -> dict[str, Any]:
        """Return what the dashboard knows of a job: `status`, `driver_exit_code`, ..."""
        return self.ask(f"/api/jobs/{job}")

    def alive(self) -> list[dict[str, Any]]:
        """Return the nodes that the cluster takes for alive, the head too."""
        found = self.ask("/api/v0/nodes?detail=true")["data"]["result"]["result"]
        return [node for node in found if node["state"] == "ALIVE"]

    def ask(self, path: str) -> dict[str, Any]:
        """Return an answer of the dashboard."""
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait(
        self,
        what: str,
        condition: Callable[[], object],
        job: Job | None = None,
        seconds: float = START_S,
    ) -> float:
        """Wait until a condition holds; return the seconds. A job that ends before is a failure."""
        began = time.monotonic()
        while not condition():
            text = job.text() if job else ""
            if job and job.process.poll() is not None:
                raise ClusterError(f"{job.id} ended before there was {what}\n{text}")
            if time.monotonic() > began + seconds:
                raise ClusterError(f"waited {seconds} s for {what}\n{text}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def add_node(self) -> Node:
        """Start another machine that does work; it need not be up yet."""
        words = ("--address", self.gcs, "--num-cpus", "2")
        node = self._boot(f"n{len(list(self.root.glob('n*')))}", *words)
        self.nodes.append(node)
        return node

    def wait_for_nodes(self, count: int) -> float:
        """Wait until this many nodes are alive, the head not counted; return the seconds."""

        def there() -> bool:
            for node in self.nodes:
                if node.start.poll() is not None:
                    raise ClusterError(f"{node.folder.name} did not start\n{node.said()}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                return len(self.alive()) == count + 1
            return False

        return self.wait(f"{count} nodes", there)

    def remove_node(self, node: Node | None = None) -> None:
        """Kill a machine that does work (the youngest one), all its processes at once."""
        node = node or self.nodes[-1]
        self.nodes.remove(node)
        node.kill()

    def files(self) -> list[Path]:
        """Return all files that the nodes have written (not the shell's, and no uploaded code)."""
        found = [path for path in self.root.rglob("*") if path.is_file()]
        ours = (self.root / "shell", self.upload)
        return [path for path in found if not any(path.is_relative_to(one) for one in ours)]

    def kill(self) -> None:
        """End all that runs in its folders."""
        Node(self.root, self.nodes[0].start if self.nodes else self.head.start).kill()
        for node in (self.head, *self.nodes):
            node.start.wait()

    def _head(self, dashboard: int, *more: str, **environment: str) -> None:
        words = (
            *("--head", "--node-ip-address", LOOPBACK, "--port", self.gcs.split(":")[1]),
            *("--dashboard-host", LOOPBACK, "--dashboard-port", str(dashboard)),
            *("--ray-client-server-port", str(free_port()), "--num-cpus", "0"),
        )
        self.head = self._boot("head", *words, *more, **environment)

    def _boot(self, name: str, *words: str, **environment: str) -> Node:
        """Start a machine: a home with a token, and `ray start` in it."""
        folder = self.root / name
        for place in (".ray", "tmp"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        write_token(folder / ".ray/auth_token", self.token)
        command = [
            *(*RAY, "start", "--block", "--disable-usage-stats", *words),
            *("--temp-dir", str(folder), "--object-store-memory", str(STORE_BYTES)),
            *("--dashboard-agent-listen-port", str(free_port())),
            *("--min-worker-port", "0", "--max-worker-port", "0"),  # the default is one for all
        ]
        with (folder / "start.log").open("wb") as out:
            start = subprocess.Popen(
                [*LEASH, *command],
                cwd=folder,
                start_new_session=True,  # a Ctrl-C is for the tests, which end it
                env={
                    **BARE,
                    "HOME": str(folder),
                    "TMPDIR": str(folder / "tmp"),
                    "RAY_AUTH_MODE": "token",
                    **self.given,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return Node(folder, start)

    def _shell(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the shell outside, without those that are empty."""
        home = {"HOME": str(self.root / "shell")}
        both = {**BARE, **home, **self.environment, **environment}
        return {name: value for name, value in both.items() if value}


RAY = (sys.executable, "-m", "ray.scripts.scripts")
# Where the system can, nodes end with the tests, also when these are killed.
LEASH = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
BARE = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"}


def write_token(path: Path, token: str) -> None:
    """Write a token that nobody else can read."""
    path.touch(0o600)
    path.write_text(token)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def cluster(given: dict[str, str], nodes: int = 2) -> Iterator[Cluster]:
    """Give a cluster of a head without CPUs and nodes of 2 CPUs, all up.

    Args:
        given: variables for all nodes, as those that say where the store is.
        nodes: how many.
    """
    with _prepared(given) as (made, dashboard):
        made._head(dashboard)
        for _ in range(nodes):
            made.add_node()
        made.wait_for_nodes(nodes)
        yield made


@contextlib.contextmanager
def autoscaling(
    given: dict[str, str], most: int = 2, idle_minutes: float = 0.2
) -> Iterator[Cluster]:
    """Give a cluster of a head without CPUs, whose autoscaler may start nodes of 2 CPUs.

    The autoscaler is Ray's own; what it asks for machines starts processes on this one instead.

    Args:
        given: see `cluster`.
        most: nodes at once.
        idle_minutes: a node without work goes after these.
    """
    with _prepared(given) as (made, dashboard):
        config = autoscaler_config(made.gcs, most, idle_minutes)
        home = made.root / "head"
        home.mkdir()
        (home / LAUNCHER_CONFIG).write_text(json.dumps(config))
        made._head(
            dashboard,
            f"--autoscaling-config={home / LAUNCHER_CONFIG}",
            RAY_FAKE_CLUSTER="1",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
        )
        made.wait_for_nodes(0)
        yield made


def autoscaler_config(gcs: str, most: int, idle_minutes: float) -> dict[str, Any]:
    """Return what `ray up` would have left on the head, with a provider of local processes."""
    none: dict[str, list[Any]] = {
        f"{kind}_commands": []
        for kind in (
            *("initialization", "setup", "head_setup", "worker_setup"),
            *("head_start_ray", "worker_start_ray"),
        )
    }
    worker = {"CPU": 2, "object_store_memory": STORE_BYTES}
    return {
        "cluster_name": "local",
        "max_workers": most,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": gcs,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": worker,
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "docker": {},
        **none,
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextlib.contextmanager
def _prepared(given: dict[str, str]) -> Iterator[tuple[Cluster, int]]:
    """Give a cluster with nothing in it, and the port for its dashboard; end it afterwards."""
    # A short path: Ray makes sockets below it, whose names may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        (root / "shell").mkdir()
        token, dashboard = secrets.token_hex(32), free_port()
        write_token(root / "shell/token", token)
        outside = {
            "RAY_ADDRESS": f"http://{LOOPBACK}:{dashboard}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(root / "shell/token"),
        }
        made = Cluster(root, token, f"{LOOPBACK}:{free_port()}", outside, given)
        _copy(made.upload)
        try:
            yield made, dashboard
        except ClusterError as error:
            raise ClusterError(f"{error}\n{_seen(root)}") from error
        finally:
            made.kill()


def _copy(folder: Path) -> None:
    """Copy what a job needs of the repository, and nothing that git leaves out."""
    for name in UPLOADED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / "where.py").write_text(WHERE)


def _seen(root: Path) -> str:
    """Return what all `ray start` have printed."""
    logs = sorted(root.glob("*/start.log"))
    return "\n".join(f"--- {log.parent.name}\n{log.read_text()[-2000:]}" for log in logs)


def _places() -> Iterator[tuple[int, Path]]:
    """Yield the processes of this machine and where they work."""
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended since, or is another user's
            place = os.readlink(f"/proc/{number}/cwd").removesuffix(" (deleted)")
            yield int(number), Path(place)
