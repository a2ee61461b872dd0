"""Where the time went: marks, samples and traces, as files that others can open."""

import gzip
import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from carvana_ray.runtime import profiler as profiling
from carvana_ray.runtime import torch_trace as trace

REPOSITORY = Path(__file__).parents[3]


def test_what_is_said_meanwhile_is_on_the_time_line_and_nothing_else() -> None:
    log = logging.getLogger("carvana_ray.stages.somewhere")
    log.debug("before")
    with profiling.Profiler() as profiler:
        log.debug("first %d", 1)
        logging.getLogger("another.library").warning("not ours")
        end = time.monotonic() + 3 * profiling.EVERY_S
        while time.monotonic() < end:  # one core is busy
            sum(range(1000))
        log.debug("second")
    log.debug("after")
    found = profiler.timeline
    assert [said for _, said in found.marks] == ["first 1", "second"]
    (first, _), (second, _) = found.marks
    assert 3 * profiling.EVERY_S <= second - first < 60
    assert found.cpu
    assert all(first - 1 < at < second + 1 for at, _ in found.cpu)
    assert all(0 <= share <= 1 for _, share in found.cpu)
    assert max(share for _, share in found.cpu) > 0.5 / (os.cpu_count() or 1)


def test_a_time_line_is_numbers_and_a_picture() -> None:
    line = profiling.Timeline([(1.0, "began")], [(0.5, 0.25), (1.0, 1.0)], [(1.0, 0.5)])
    files = line.files("train")
    assert sorted(files) == ["train-timeline.json", "train-timeline.png"]
    numbers = json.loads(files["train-timeline.json"])
    assert numbers == {
        "marks": [[1.0, "began"]],
        "cpu": [[0.5, 0.25], [1.0, 1.0]],
        "gpu": [[1.0, 0.5]],
    }
    assert Image.open(io.BytesIO(files["train-timeline.png"])).width > 600


def test_a_trace_holds_the_steps_it_was_told_of(tmp_path: Path) -> None:
    watched = trace.Trace(str(tmp_path), "worker")
    layer = torch.nn.Linear(8, 8)
    for _ in range(trace.AFTER + trace.WARM + trace.STEPS + 3):
        layer(torch.zeros(2, 8)).sum().backward()
        watched.step()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["worker-kernels.txt", "worker-trace.json.gz"]
    events = json.loads(gzip.decompress((tmp_path / names[1]).read_bytes()))["traceEvents"]
    steps = {e["name"] for e in events if str(e.get("name")).startswith("ProfilerStep")}
    assert len(steps) == trace.STEPS
    assert "addmm" in (tmp_path / names[0]).read_text()


def test_a_job_leaves_its_time_line_also_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/other.jpg").write_bytes(b"of somebody else")
    command = [sys.executable, str(REPOSITORY / "jobs/sample.py"), "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--profile"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "other.jpg" in done.stderr.splitlines()[-1]
    assert (tmp_path / "profile/sample-timeline.json").exists()
