"""An image that crashes its process is found, and all other blocks are done."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError
from support.commands import REPOSITORY

from carvana_ray.data.quarantine import CRASH
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest import crash_isolation
from carvana_ray.stages.ingest.crash_isolation import (
    LOSSES,
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


GOOD, KILLS, RAISES, KILLS_IN_COMPANY = (
    FileInfo(name, 1, "1") for name in ("good", "kills", "raises", "kills in company")
)


@pytest.mark.ray
def test_an_image_whose_work_kills_its_process_alone_is_found(
    ray_session: None, tmp_path: Path
) -> None:
    def work(image: FileInfo) -> None:
        died_before = tmp_path / image.name
        if image == KILLS or (image == KILLS_IN_COMPANY and not died_before.exists()):
            died_before.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if image == RAISES:
            raise ValueError("an error is not a death")

    assert find_crashing([GOOD, KILLS, RAISES, KILLS_IN_COMPANY], work) == [KILLS]


UNDER_PRESSURE = """
import ray
from carvana_ray.errors import IncompleteError
from carvana_ray.stages.ingest.crash_isolation import find_crashing
from carvana_ray.storage import FileInfo

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)

def work(image):
    import time
    time.sleep(3)

try:
    print("named:", find_crashing([FileInfo(name, 1, "1") for name in "abcd"], work))
except IncompleteError as error:
    print("ended:", error)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_machine_that_is_out_of_memory_names_no_image(tmp_path: Path) -> None:
    """Ray's memory monitor kills each task, as if the machine had no memory left."""
    monitor = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "250"}
    done = subprocess.run(
        [sys.executable, "-c", UNDER_PRESSURE],
        env={**os.environ, **monitor, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout.startswith("ended: out of memory while reading a alone, 4 times; all")


def outcomes(monkeypatch: pytest.MonkeyPatch, *deaths: Exception | None) -> list[Exception | None]:
    """Let the tasks end in turn with these errors; None is a task whose process lives."""
    monkeypatch.setattr(crash_isolation, "PAUSE_S", 0)
    left = list(deaths)
    monkeypatch.setattr(crash_isolation, "_death", lambda _: left.pop(0))
    return left


OUT_OF_MEMORY, NODE_DIED = OutOfMemoryError("Memory on the node"), NodeDiedError("node 7 is gone")


def test_only_the_death_of_its_own_process_speaks_against_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Out of memory and a lost machine are tried again."""
    crash = WorkerCrashedError()
    for deaths, guilty in [
        ([crash, crash], True),
        ([crash, OUT_OF_MEMORY, NODE_DIED, crash], True),
        ([crash, None], False),
        ([OUT_OF_MEMORY, NODE_DIED, OUT_OF_MEMORY, None], False),
    ]:
        left = outcomes(monkeypatch, *deaths)
        assert crash_isolation._kills_alone("a.jpg", list) is guilty
        assert left == []


@pytest.mark.parametrize(
    ("death", "message"),
    [
        (OUT_OF_MEMORY, r"out of memory while reading a\.jpg alone, 4 times; .*free memory"),
        (NODE_DIED, r"a machine was lost \(node 7 is gone\) while reading a\.jpg alone, 4 times"),
    ],
)
def test_a_machine_that_cannot_tell_ends_the_run_and_names_no_culprit(
    monkeypatch: pytest.MonkeyPatch, death: Exception, message: str
) -> None:
    left = outcomes(monkeypatch, *[death] * (LOSSES + 1))
    with pytest.raises(IncompleteError, match=message) as error:
        crash_isolation._kills_alone("a.jpg", list)
    assert "\n" not in str(error.value)
    assert left == [death], "the tries are bounded"


def test_a_lost_block_is_repeated_without_its_crashing_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, (b0, b1) = BLOCKS[0].entries[0], BLOCKS[1].entries
    calls: list[tuple[list[str], dict[FileInfo, str], int]] = []
    tried: list[tuple[list[FileInfo], object, WorkerAllocation]] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[FileInfo, str], max_lost: int
    ) -> set[str]:
        calls.append(([block.name for block in blocks], dict(preset_status), max_lost))
        return {block.name for block in blocks if block.name == "c" or b1 in preset_status}

    def find(
        images: list[FileInfo], work: object, workers: WorkerAllocation, *_: object
    ) -> list[FileInfo]:
        tried.append((images, work, workers))
        return [b1]

    monkeypatch.setattr(crash_isolation, "find_crashing", find)
    workers = WorkerAllocation(2, 1, True)
    run_with_isolation(BLOCKS, run_blocks, print, workers, crashing=[known])
    first, second = calls
    assert first == (["a", "b", "c"], {known: CRASH}, 24)
    assert second == (["a", "b"], {known: CRASH, b1: CRASH}, 24)
    assert tried == [([BLOCKS[0].entries[1], b0, b1], print, workers)], "the known one is not tried"


def test_the_last_pass_may_lose_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[int] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[FileInfo, str], max_lost: int
    ) -> set[str]:
        allowed.append(max_lost)
        return set()

    monkeypatch.setattr(crash_isolation, "find_crashing", lambda *_: [])
    run_with_isolation(BLOCKS, run_blocks, print)
    assert allowed == [LOST_BLOCKS] * (PASSES - 1) + [0]
