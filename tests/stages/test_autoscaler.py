"""The limits of an autoscaler, from the configuration of `ray up`."""

import json
from pathlib import Path

import pytest

from carvana_ray.config import TrainFlags
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import allocate_workers
from carvana_ray.stages import autoscaler, session
from carvana_ray.stages.autoscaler import launcher_limits

LAUNCHED = {
    "max_workers": 6,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 2}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 16, "GPU": 1}, "max_workers": 4},
        "cpu": {"resources": {"CPU": 8}, "max_workers": 8},
        "none": {"resources": {"CPU": 99}, "max_workers": 0},
    },
}


def test_the_limit_is_the_best_nodes_that_the_autoscaler_may_add() -> None:
    assert launcher_limits(LAUNCHED, 2, 0) == (2 + 4 * 16 + 2 * 8, 4)
    assert launcher_limits(LAUNCHED, 200, 7) == (200, 7), "nodes were added by hand"
    assert launcher_limits({**LAUNCHED, "max_workers": 3}, 2, 0) == (2 + 3 * 16, 3)
    assert launcher_limits({**LAUNCHED, "max_workers": 0}, 2, 0) == (2, 0)


@pytest.mark.ray
def test_a_session_on_a_head_node_knows_the_autoscaler_s_limits(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoscaler, "LAUNCHER_CONFIG", str(tmp_path / "none"))
    with session.session() as here:
        assert (here.cpus, here.nodes, here.autoscaler_max) == (4, 1, None)
    (tmp_path / "launched").write_text(json.dumps(LAUNCHED))
    monkeypatch.setattr(autoscaler, "LAUNCHER_CONFIG", str(tmp_path / "launched"))
    with session.session() as here:
        assert here.autoscaler_max == (82, 4)
        allocate_workers(TrainFlags(workers=3, device="cuda"), here)
    with pytest.raises(InputError, match="the autoscaler provides up to 82 CPUs and 4 GPUs"):
        allocate_workers(TrainFlags(workers=5, device="cuda"), here)
