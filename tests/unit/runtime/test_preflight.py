"""The line that a job logs before it starts."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import s3_servers

from carvana_ray import storage
from carvana_ray.checkpoints import model
from carvana_ray.runtime import preflight
from carvana_ray.runtime.resources import WorkerAllocation


def test_one_line_says_what_runs_where_and_how_much_disk_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    usage = shutil.disk_usage(tmp_path)._replace(free=81_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    out = str(tmp_path / "not/yet/there")
    preflight.announce("predict", "3 images", out, "2 GPUs")
    (line,) = caplog.records
    assert line.getMessage() == f"predict: 3 images; 2 GPUs; 81 GB free in {out}"
    assert line.levelno == logging.INFO
    assert not (tmp_path / "not").exists()


def test_a_full_disk_ends_no_job_before_it_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    preflight.announce("predict", "3 images, 3 done", str(tmp_path))
    assert caplog.messages == [f"predict: 3 images, 3 done; 0 MB free in {tmp_path}"]


def test_the_workers_say_whether_gpus_decode_jpegs() -> None:
    assert preflight.describe_workers(WorkerAllocation(2, 1, True)) == "2 GPUs"
    assert (
        preflight.describe_workers(WorkerAllocation(1, 1, True, decode_on_gpu=True))
        == "1 GPU (decoding JPEGs)"
    )


def test_the_free_space_of_s3_is_unknown_and_left_out(
    s3: s3_servers.Server,
    bucket: Callable[[s3_servers.Server], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    home = bucket(s3)
    assert storage.free_space(home) is None
    preflight.announce("train", "5 epochs", f"{home}/runs")
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == "train: 5 epochs"


def test_workers_and_networks_are_described_in_words() -> None:
    assert preflight.describe_workers(WorkerAllocation(1, 2, False)) == "1 process of 2 CPUs"
    assert preflight.describe_workers(WorkerAllocation(3, 1, False)) == "3 processes of 1 CPU"
    assert preflight.describe_workers(WorkerAllocation(4, 1, True)) == "4 GPUs"
    assert model.describe_network("best", 32, 4) == "recipe best, 32 channels, 1/4 of the size"
    assert model.describe_network("best", 32, 1) == "recipe best, 32 channels, full size"
    named = model.describe_network("default", 32, 4, "lite0")
    assert named == "recipe default, 32 channels, 1/4 of the size, encoder lite0"
