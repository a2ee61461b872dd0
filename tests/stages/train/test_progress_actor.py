"""Progress between workers and driver: sent at intervals, shown while a block runs."""

import logging
import time
from types import SimpleNamespace

import pytest
import ray

from carvana_ray.stages.train import progress_actor


class FakeActor:
    """Records the numbers that it is sent, as a handle of the actor would forward them."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.set_done = SimpleNamespace(remote=self.sent.append)


def test_progress_is_sent_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    actor = FakeActor()
    send = progress_actor.progress_sender(actor)
    for done in range(10):
        send(done)
        now[0] += progress_actor.SEND_EVERY_S / 2
    assert actor.sent == [0, 2, 4, 6, 8]


@pytest.mark.ray
def test_the_meter_shows_the_number_that_a_worker_sent(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker's note is one line of the log, however often it is polled."""
    caplog.set_level(logging.INFO, "carvana_ray")
    monkeypatch.setattr(progress_actor, "POLL_EVERY_S", 0.01)
    actor = progress_actor.start_progress_actor()
    ray.get([actor.set_done.remote(5), actor.set_note.remote("48 pairs stay")])
    shown: list[int] = []
    meter = SimpleNamespace(done=7, set=shown.append)
    with progress_actor.poll_progress(actor, meter):  # type: ignore[arg-type]
        while not shown:
            time.sleep(0.01)
        ray.get(actor.set_done.remote(9))
        while shown[-1] != 9:
            time.sleep(0.01)
    assert set(shown) == {7, 9}, "never less than before"
    assert [r.getMessage() for r in caplog.records] == ["train: 48 pairs stay"]
    count = len(shown)
    time.sleep(0.05)
    assert len(shown) == count, "no poll after the block"


@pytest.mark.ray
def test_workers_wait_for_the_chunks(ray_session: None) -> None:
    actor = progress_actor.start_progress_actor()
    chunks = actor.get_chunks.remote()
    assert ray.wait([chunks], timeout=0.2)[0] == []
    ray.get(actor.set_chunks.remote(["chunk"]))
    assert ray.get(chunks, timeout=30) == ["chunk"]
