"""A trace holds the steps that it was told of, in files that other programs open."""

import gzip
import json
from pathlib import Path

import torch

from carvana_ray.runtime.torch_trace import SKIPPED, TRACED, WARM_UP, Trace


def test_a_trace_holds_the_steps_after_the_warm_up(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path), "worker")
    layer = torch.nn.Linear(8, 8)
    for _ in range(SKIPPED + WARM_UP + TRACED + 3):
        layer(torch.zeros(2, 8)).sum().backward()
        trace.step()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["worker-kernels.txt", "worker-trace.json.gz"]
    events = json.loads(gzip.decompress((tmp_path / names[1]).read_bytes()))["traceEvents"]
    steps = {e["name"] for e in events if str(e.get("name")).startswith("ProfilerStep")}
    assert len(steps) == TRACED
    assert "addmm" in (tmp_path / names[0]).read_text()
