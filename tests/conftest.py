"""Fixtures: a tiny data set in Kaggle's layout, a real Ray, S3 servers, the jobs as commands."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# Before Ray is imported: a local Ray would write a token to the home folder, which would turn
# authentication on for later clusters of this machine.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import pytest
from support import s3_servers
from support.commands import CANARY, REPOSITORY, SMALL, Run, result_of
from support.pairs import make_data


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the Ray tests first: they are long, and no process should wait for another at the end."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first test process creates; the other processes wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a failed attempt
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Start each module of tests with one thread of torch, whatever number the last one left.

    Jobs in the test process set their own number, and the last bits of a sum depend on it.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 cars with masks and 2 without, 8 views each. Tests only read it."""
    return made_once(
        tmp_path_factory, "carvana", lambda root: make_data(root, cars=8, test_cars=2, views=8)
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that CARVANA_DATA names; the test is skipped without it."""
    folder = os.environ.get("CARVANA_DATA")
    if not folder:
        pytest.skip("CARVANA_DATA is not set to a folder of Kaggle's images")
    return Path(folder)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One real Ray for all tests that need it in the test process itself."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=500_000_000,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    """One moto server for all tests: S3 without access rights."""
    with s3_servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    """One RADOS Gateway for all tests; the test is skipped if it is not installed."""
    if reason := s3_servers.why_no_gateway():
        pytest.skip(reason)
    with s3_servers.rados_gateway(tmp_path_factory.mktemp("rgw")) as server:
        yield server


@pytest.fixture(scope="session", params=["s3", "rgw"])
def server(request: pytest.FixtureRequest) -> s3_servers.Server:
    """Each S3 server in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=["s3", pytest.param("rgw", marks=pytest.mark.slow)])
def s3_proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[s3_servers.Faulty]:
    """Each S3 server behind a proxy; the test is skipped if the proxy is not installed."""
    if reason := s3_servers.why_no_proxy():
        pytest.skip(reason)
    server = request.getfixturevalue(request.param)
    with s3_servers.faulty(server, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def faulty_s3(s3_proxy: s3_servers.Faulty) -> Iterator[s3_servers.Faulty]:
    """Each S3 server behind a proxy that makes the requests fail that a test names."""
    s3_proxy.calm()
    yield s3_proxy
    s3_proxy.calm()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[s3_servers.Server], str]]:
    """Create a bucket on a server, point this process at that server and return the URI."""
    from carvana_ray.storage import s3_client

    def make(server: s3_servers.Server) -> str:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        s3_client._make_client.cache_clear()
        name = f"test-{uuid.uuid4().hex}"
        server.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    yield make
    s3_client._make_client.cache_clear()


@pytest.fixture(scope="session")
def run_job() -> Run:
    """Run a job as a user does, from another folder; return the completed process."""

    def run(
        job: str, *flags: object, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY / "jobs" / f"{job}.py"), *map(str, flags)]
        return subprocess.run(
            command,
            cwd=cwd or "/",
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def finished(data: Path, run_job: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a pipeline on the tiny data set. Running a job on it again changes nothing."""
    return made_once(tmp_path_factory, "pipeline", lambda out: run_pipeline(data, out, run_job))


def run_pipeline(data: Path, out: Path, run_job: Run) -> None:
    """Run a pipeline and check its logs, its secrets and its result."""
    with tempfile.TemporaryDirectory(prefix="ray-") as ray:  # short, for Ray's sockets
        flags = ("--data", data, "--out", out, "--epochs", 3, *SMALL)
        done = run_job("pipeline", *flags, RAY_TMPDIR=ray, AWS_SECRET_ACCESS_KEY=CANARY)
        result = result_of(done)
        logs = [path for path in Path(ray).rglob("*") if path.is_file()]
        assert len(logs) > 10
        leaks = [str(path) for path in logs if CANARY.encode() in path.read_bytes()]
    assert leaks == [], "a secret of the environment is in Ray's logs"
    assert CANARY not in done.stdout + done.stderr
    assert result["job"] == "pipeline"
    assert set(result) == {"job", "dice", "submission", "report", "seconds"}
    assert "Dice" in done.stderr
    for job in ("pipeline", "train", "evaluate", "predict"):
        (line,) = re.findall(rf"^{job}: .* free in .*", done.stderr, re.MULTILINE)
        assert line.endswith(f" free in {out}"), "each job first says what it will do"
    closing = done.stderr.splitlines()[-3:]
    assert re.match(r"held-out cars: .* mean Dice 0\.", closing[0])
    assert closing[1] == f"open: {out}/report.html"
    assert f"cutout --data {data} --submission {out}/submission.csv --out {out}" in closing[2]
    assert "train: takes about " in done.stderr
    assert "core_worker.cc" not in done.stderr
