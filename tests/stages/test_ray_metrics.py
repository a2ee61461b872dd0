"""The gauges of a run, as Prometheus reads them from Ray's dashboard."""

import socket
import subprocess
import sys
from textwrap import dedent

import pytest

from carvana_ray.stages import ray_metrics

SCRIPT = """
    import time, urllib.request
    import ray
    from carvana_ray.stages import ray_metrics

    def shown():
        text = urllib.request.urlopen("http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        return [line for line in text.splitlines() if line.startswith("ray_carvana_ray_")]

    def wait_for(value):
        end = time.monotonic() + 60
        while not any(line.endswith(value) for line in shown()):
            assert time.monotonic() < end, shown()
            time.sleep(0.1)
        return [line for line in shown() if line.endswith(value)]

    ray.init(
        address="local", num_cpus=1, include_dashboard=False, _metrics_export_port={port},
        log_to_driver=False,
    )
    with ray_metrics.meter("predict", 100) as meter:
        meter.set(1)
        time.sleep(1.5)
        meter.set(100)
        (line,) = wait_for(f" {{meter.rate}}")
        assert "pictures_per_second" in line and 'stage="predict"' in line, line
    (line,) = wait_for(" 0.0")  # the work is over
    ray_metrics.set_wait("train", 0.125)
    (line,) = wait_for(" 0.125")
    assert "data_wait_fraction" in line and 'stage="train"' in line, line
    print("seen")
"""


@pytest.mark.ray
def test_rates_and_waits_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "200")
    script = dedent(SCRIPT).format(port=port)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["seen"], done.stderr


def test_waiting_counts_between_batches_and_not_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([100.0, 103.0, 104.0, 110.0])  # works 3 s, waits 1 s, works 6 s
    fractions = []
    monkeypatch.setattr(ray_metrics.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(
        ray_metrics, "set_wait", lambda stage, fraction: fractions.append((stage, fraction))
    )
    timer = ray_metrics.WaitTimer("predict")
    for _ in range(2):
        with timer:
            pass
    assert fractions == [("predict", 0.0), ("predict", 0.1)]


def test_a_process_waits_while_none_of_its_threads_works(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 103.0, 104.0, 110.0])  # of the first call's start and the last one's end
    fractions = []
    monkeypatch.setattr(ray_metrics.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(ray_metrics, "set_wait", lambda _, fraction: fractions.append(fraction))
    timer = ray_metrics.WaitTimer("predict")
    with timer, timer, timer:
        pass
    with timer, timer:
        pass
    assert fractions == [0.0, 0.1]
