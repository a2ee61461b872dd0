"""An image that crashes its process is found, and all other blocks are done."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from carvana_ray.data.quarantine import CRASH
from carvana_ray.stages.ingest.crash_isolation import PASSES, find_crashing, run_with_isolation
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


def test_a_lost_block_is_repeated_without_its_crashing_image() -> None:
    calls: list[tuple[list[str], dict[str, str], int]] = []
    tried: list[str] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[str, str], max_lost: int
    ) -> set[str]:
        calls.append(([block.name for block in blocks], dict(preset_status), max_lost))
        return {block.name for block in blocks if block.name != "b" or preset_status}

    def crashing(names: list[str]) -> list[str]:
        tried.extend(names)
        return ["b1.jpg"]

    run_with_isolation(BLOCKS, run_blocks, 5, crashing)
    assert calls == [(["a", "b", "c"], {}, 5), (["b"], {"b1.jpg": CRASH}, 5)]
    assert tried == ["b0.jpg", "b1.jpg"]


def test_the_last_pass_may_lose_no_block() -> None:
    allowed: list[int] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[str, str], max_lost: int
    ) -> set[str]:
        allowed.append(max_lost)
        return set()

    run_with_isolation(BLOCKS, run_blocks, 5, lambda names: [])
    assert allowed == [5] * (PASSES - 1) + [0]
