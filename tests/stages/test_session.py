"""A session of Ray says what it has, and else nothing; an address that nothing answers is told."""

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import Run

from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.session import _require_listener, _use_short_temp_dir, log_resources

CORES = len(os.sched_getaffinity(0))

SMALL = """
import sys
from carvana_ray.stages import session
assert "ray.data" not in sys.modules  # as where a job joins a cluster before it loads its stage
with session.session(1, {verbose}):
    import ray.data
    assert ray.data.range(3).map_batches(lambda batch: batch).count() == 3
    kind = type("Same", (), {{"__call__": lambda self, batch: batch}})
    pool = {{"compute": ray.data.ActorPoolStrategy(size=1), "num_cpus": 0, "max_restarts": 2}}
    assert ray.data.range(3).map_batches(kind, **pool).take_all()
"""


@pytest.mark.ray
@pytest.mark.parametrize("verbose", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ray_data_says_nothing_unless_asked_to(verbose: bool) -> None:
    command = [sys.executable, "-c", SMALL.format(verbose=verbose)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("execution finished" in done.stderr) == verbose
    assert ("has constructor arguments in the object store" in done.stderr) == verbose
    if not verbose:
        assert done.stdout + done.stderr == ""


@pytest.fixture
def closed_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_an_address_where_nothing_listens_is_told_in_seconds(
    closed_port: int, run_job: Run, tmp_path: Path
) -> None:
    address, began = f"127.0.0.1:{closed_port}", time.monotonic()
    done = run_job("sample", "--out", tmp_path, RAY_ADDRESS=address)
    assert time.monotonic() - began < 15
    assert done.returncode == 2
    assert done.stderr.startswith(f"sample: error: RAY_ADDRESS {address}: no Ray cluster answers")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "[::1]:{}", "::1:{}"])
def test_only_an_address_of_host_and_port_is_tried(form: str, closed_port: int) -> None:
    with pytest.raises(OSError, match=r"refused|assign"):
        _require_listener(form.format(closed_port))
    for other in ("auto", "local", f"ray://127.0.0.1:{closed_port}", "/tmp/socket:6379"):
        _require_listener(other)


def test_an_address_where_something_listens_is_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _require_listener(f"127.0.0.1:{server.getsockname()[1]}")


def test_an_address_that_is_none_is_an_error_of_one_line(run_job: Run, tmp_path: Path) -> None:
    done = run_job("sample", "--out", tmp_path, RAY_ADDRESS="cluster")
    assert done.returncode == 2
    assert done.stderr.startswith("sample: error: RAY_ADDRESS cluster: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("cluster", "address", "said"),
    [
        (ClusterResources(CORES + 1, 0, 1), "", f"{CORES} CPUs, no GPU"),
        (ClusterResources(64, 1, 1), "", "64 logical CPUs, 1 GPU"),
        (ClusterResources(8, 0, 2), "10.0.0.1:6379", "Ray: 2 nodes, 8 CPUs, 0 GPUs"),
    ],
)
def test_the_log_counts_the_cpus_that_the_user_knows(
    cluster: ClusterResources,
    address: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    caplog.set_level(logging.INFO)
    log_resources(cluster)
    (line,) = caplog.messages
    assert line.endswith(said)


LONG = "/scratch/net/people/somebody/slurm_jobdir/1355700/tmp.t0016"


@pytest.mark.parametrize(("folder", "used"), [(LONG, "/tmp"), ("/tmp/short", None)])
def test_a_temporary_folder_too_long_for_sockets_is_replaced(
    folder: str, used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", folder)
    _use_short_temp_dir()
    assert os.environ.pop("RAY_TMPDIR", None) == used


def test_a_temporary_folder_that_the_user_chose_is_named_if_it_is_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + 38 * "x")
    _use_short_temp_dir()
    monkeypatch.setenv("RAY_TMPDIR", "/" + 39 * "x")
    with pytest.raises(InputError, match=r"RAY_TMPDIR /x+: too long .* at most 39 bytes"):
        _use_short_temp_dir()
