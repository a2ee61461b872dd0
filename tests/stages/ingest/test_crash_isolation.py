"""An image that crashes its process is found, and all other blocks are done."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from carvana_ray.data.quarantine import CRASH
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest import crash_isolation
from carvana_ray.stages.ingest.crash_isolation import (
    LOST_BLOCKS,
    PASSES,
    find_crashing,
    run_with_isolation,
)
from carvana_ray.storage import FileInfo


@dataclass(frozen=True)
class Block:
    name: str
    entries: tuple[FileInfo, ...]


BLOCKS = [
    Block(name, tuple(FileInfo(f"{name}{number}.jpg", 1, "1") for number in range(2)))
    for name in ("a", "b", "c")
]


@pytest.mark.ray
def test_the_name_whose_work_kills_its_process_is_found(ray_session: None) -> None:
    def work(name: str) -> None:
        if name == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "raises":
            raise ValueError("an error is not a death")

    assert find_crashing(["a", "kills", "raises", "b"], work) == ["kills"]
    assert find_crashing(["a", "raises"], work) == []


def test_a_lost_block_is_repeated_without_its_crashing_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[list[str], dict[str, str], int]] = []
    tried: list[tuple[list[str], object, WorkerAllocation]] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[str, str], max_lost: int
    ) -> set[str]:
        calls.append(([block.name for block in blocks], dict(preset_status), max_lost))
        return {block.name for block in blocks if block.name != "b" or preset_status}

    def find(names: list[str], work: object, workers: WorkerAllocation, *_: object) -> list[str]:
        tried.append((names, work, workers))
        return ["b1.jpg"]

    monkeypatch.setattr(crash_isolation, "find_crashing", find)
    workers = WorkerAllocation(2, 1, True)
    run_with_isolation(BLOCKS, run_blocks, print, workers)
    assert calls == [(["a", "b", "c"], {}, 24), (["b"], {"b1.jpg": CRASH}, 24)]
    assert tried == [(["b0.jpg", "b1.jpg"], print, workers)]


def test_the_last_pass_may_lose_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[int] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[str, str], max_lost: int
    ) -> set[str]:
        allowed.append(max_lost)
        return set()

    monkeypatch.setattr(crash_isolation, "find_crashing", lambda *_: [])
    run_with_isolation(BLOCKS, run_blocks, print)
    assert allowed == [LOST_BLOCKS] * (PASSES - 1) + [0]
