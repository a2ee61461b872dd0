"""Real S3 servers on this machine's loopback, as processes that end with their `with` block.

moto is a Python package and accepts any secret. Ceph's RADOS Gateway is S3 as clusters run it, with
real permissions; it comes from Debian's packages and runs in memory. mitmproxy in front of either
injects faults.
"""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
START_S = 60
PACKAGES = "radosgw ceph-mon ceph-osd ceph-common"
PROGRAMS = (
    *("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd"),
    *("ceph", "ceph-authtool", "monmaptool"),
)
# In its own environment, because it needs older versions of h11 and msgpack than Ray.
MITMPROXY, MITMPROXY_VENV = "mitmproxy==11.0.2", REPOSITORY / ".venv-mitmproxy"


@dataclass(frozen=True)
class Server:
    """The address of an S3 server, and the keys of a user with all permissions."""

    endpoint: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """Return the variables by which a job finds the server, without the user's AWS settings."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self) -> Any:
        """Return a plain client, independent of the client under test."""
        return _client(self.endpoint, self.access_key, self.secret_key)


@functools.cache
def _client(endpoint: str, access_key: str, secret_key: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@dataclass(frozen=True)
class Faulty(Server):
    """A proxy in front of a server that injects faults."""

    folder: Path
    rules: list[dict[str, Any]] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=itertools.count)

    def fault(
        self,
        kind: str,
        match: str = "",
        method: str = "",
        query: str = "",
        n: int | None = 1,
        per: str = "key",
        s: float = 5,
    ) -> None:
        """Inject a fault into the next requests.

        Args:
            kind: 503, 500, 403 or expired (an error of S3); reset (no answer, no effect on the
                server); lost (effect, but no answer); stall (an answer after `s` seconds); flip
                (one bit of the answer is wrong), flip-sent (one bit of the request); short (half of
                the answer with a matching length), cut (half, then the connection closes), hang
                (half, then nothing).
            match: part of ``/bucket/key``.
            method: GET, PUT, ...; "" for all.
            query: part of the query, such as ``list-type=2``.
            n: number of requests; None for all.
            per: "key" counts the requests of each key, "all" counts them together.
            s: seconds of a stall.
        """
        self.rules.append(
            {
                "id": next(self.ids),
                "kind": kind,
                "match": match,
                "method": method,
                "query": query,
                "n": n,
                "per": per,
                "s": s,
            }
        )
        self._write_rules()

    def calm(self) -> None:
        """Inject no more faults, and forget the requests so far."""
        self.rules.clear()
        self._write_rules()
        (self.folder / "requests.jsonl").write_text("")

    def requests(self) -> list[tuple[str, str, str]]:
        """Return method, path with query, and fault (or "pass") of all requests since `calm`."""
        lines = (self.folder / "requests.jsonl").read_text().splitlines()
        return [(method, path, kind) for method, path, kind in map(json.loads, lines)]

    def _write_rules(self) -> None:
        new = self.folder / "rules.new"
        new.write_text(json.dumps(self.rules))
        new.rename(self.folder / "rules.json")


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """Start an empty moto server; its log is in `folder`."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = Server(f"http://127.0.0.1:{port}", "moto-access", "moto-secret")
    with _process("moto", command, folder) as require_alive:
        _wait_for_answer(server.endpoint, require_alive)
        yield server


def why_no_gateway() -> str | None:
    """Return why the RADOS Gateway cannot run on this machine, None if it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    return f"{missing[0]} is not installed (apt-get install {PACKAGES})" if missing else None


@contextlib.contextmanager
def rados_gateway(folder: Path) -> Iterator[Server]:
    """Start an empty RADOS Gateway, with a Ceph of one monitor and one disk in memory."""
    port, monitor, fsid, disk = _free_port(), _free_port(), str(uuid.uuid4()), str(uuid.uuid4())
    server = Server(f"http://127.0.0.1:{port}", "gateway-access", "gateway-secret")
    address = f"[v2:127.0.0.1:{monitor}]"
    (folder / "ceph.conf").write_text(_ceph_conf(folder, fsid, address, port))
    run = functools.partial(_run, folder)
    with contextlib.ExitStack() as processes:

        def start(program: str, *flags: str) -> Callable[[], None]:
            command = [program, "-f", "-c", f"{folder}/ceph.conf", *flags]
            return processes.enter_context(_process(program, command, folder))

        run("ceph-authtool", "--create-keyring", "keyring", "--gen-key", "-n", "client.rgw")
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, "monmap")
        run("ceph-mon", "-c", "ceph.conf", "--mkfs", "-i", "a", "--monmap", "monmap")
        start("ceph-mon", "-i", "a")
        run("ceph", "-c", "ceph.conf", "osd", "new", disk)  # returns when the monitor is up
        run("ceph-osd", "-c", "ceph.conf", "-i", "0", "--mkfs", "--osd-uuid", disk)
        start("ceph-osd", "-i", "0")
        user = ("--uid", "test", "--display-name", "test")
        keys = ("--access-key", server.access_key, "--secret", server.secret_key)
        run("radosgw-admin", "-c", "ceph.conf", "-n", "client.rgw", "user", "create", *user, *keys)
        _wait_for_answer(server.endpoint, start("radosgw", "-n", "client.rgw"))
        yield server


def _ceph_conf(folder: Path, fsid: str, monitor: str, port: int) -> str:
    for name in ("mon", "osd", "rgw", "run"):
        (folder / name).mkdir()
    # One replica on one disk in memory. The daemons use no keys, because only this machine reaches
    # them. Without the monitor's pauses, which are for clusters, it starts in 3 s instead of 20 s.
    return f"""[global]
fsid = {fsid}
mon host = {monitor}
mon initial members = a
public network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon service mode = crc
paxos propose interval = 0.05
paxos min wait = 0.01
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {4 * 2**30}
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
run dir = {folder}/run
crash dir = {folder}/run
log file = {folder}/$name.log
admin socket =
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


@functools.cache
def why_no_proxy() -> str | None:
    """Install the proxy unless it is installed; return why it cannot run, None if it can."""
    ready = MITMPROXY_VENV / "ready"
    MITMPROXY_VENV.mkdir(exist_ok=True)
    with open(MITMPROXY_VENV / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # against a second run of the tests
        if ready.exists() and ready.read_text() == MITMPROXY:
            return None
        steps = [
            [sys.executable, "-m", "venv", str(MITMPROXY_VENV)],
            [f"{MITMPROXY_VENV}/bin/pip", "install", "--quiet", "--retries", "2", MITMPROXY],
        ]
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                cause = (done.stderr or done.stdout).strip().splitlines()[-1:]
                return f"{MITMPROXY} cannot be installed: {''.join(cause)}"
        ready.write_text(MITMPROXY)
    return None


@contextlib.contextmanager
def faulty(server: Server, folder: Path) -> Iterator[Faulty]:
    """Start a proxy in front of a server that injects faults."""
    port = _free_port()
    proxy = Faulty(f"http://127.0.0.1:{port}", server.access_key, server.secret_key, folder)
    proxy.calm()
    options = {
        "faults": str(folder),
        "confdir": str(folder),
        "keep_host_header": "true",  # the signature covers it
    }
    addon = REPOSITORY / "tests/support/s3_faults.py"
    command = [
        *(str(MITMPROXY_VENV / "bin/mitmdump"), "-q", "-s", str(addon)),
        *("--mode", f"reverse:{server.endpoint}", "--listen-host", "127.0.0.1", "-p", str(port)),
        *(part for name, value in options.items() for part in ("--set", f"{name}={value}")),
    ]
    with _process("mitmdump", command, folder) as require_alive:
        _wait_for_answer(proxy.endpoint, require_alive)
        proxy.calm()
        yield proxy


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _environment() -> dict[str, str]:
    """Return the environment without settings that would mislead Ceph or mitmproxy."""
    ours = ("CEPH_", "PYTHON", "AWS_", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | {"PATH": _path()}


def _run(folder: Path, *command: str) -> None:
    """Run a command; raise an error with its output if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{command[0]}: {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"
        )


@contextlib.contextmanager
def _process(name: str, command: list[str], folder: Path) -> Iterator[Callable[[], None]]:
    """Run a server during the block; yield a function that raises if the server has died.

    The server is killed, since it has nothing to save. With setpriv it also dies when this process
    is killed.
    """
    leash = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    log = folder / f"{name}.out"
    with (
        open(log, "wb") as out,
        subprocess.Popen(
            [*leash, *command],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):

        def require_alive() -> None:
            if process.poll() is not None:
                end = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}\n{end}")

        try:
            yield require_alive
        finally:
            process.kill()


def _wait_for_answer(endpoint: str, require_alive: Callable[[], None]) -> None:
    """Wait until a server answers, if only with an error."""
    end = time.monotonic() + START_S
    while True:
        require_alive()
        try:
            with urllib.request.urlopen(endpoint, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"{endpoint} does not answer: {error}") from error
        time.sleep(0.05)
