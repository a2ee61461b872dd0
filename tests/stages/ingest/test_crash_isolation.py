"""An image that crashes its process is found, and all other blocks are done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from carvana_ray.data.quarantine import CRASH
from carvana_ray.errors import IncompleteError
from carvana_ray.stages.ingest import crash_isolation
from carvana_ray.stages.ingest.crash_isolation import (
    LOSSES,
    LOST_BLOCKS,
    PASSES,
    Death,
    Trial,
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


def outcomes(
    monkeypatch: pytest.MonkeyPatch, *deaths: Death | None
) -> tuple[list[Death | None], Callable[[], Trial]]:
    """Return these deaths, and what starts trials that end in turn so; None is one that lives."""
    monkeypatch.setattr(crash_isolation, "PAUSE_S", 0)
    left = list(deaths)
    return left, lambda: lambda: left.pop(0)


CRASHED, OUT_OF_MEMORY, NODE_DIED = (
    Death("crash"),
    Death("memory"),
    Death("machine", "node 7 is gone"),
)


def test_only_the_death_of_its_own_process_speaks_against_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Out of memory and a lost machine are tried again."""
    for deaths, guilty in [
        ([CRASHED, CRASHED], True),
        ([CRASHED, OUT_OF_MEMORY, NODE_DIED, CRASHED], True),
        ([CRASHED, None], False),
        ([OUT_OF_MEMORY, NODE_DIED, OUT_OF_MEMORY, None], False),
    ]:
        left, start = outcomes(monkeypatch, *deaths)
        assert crash_isolation._kills_alone("a.jpg", start) is guilty
        assert left == []


@pytest.mark.parametrize(
    ("death", "message"),
    [
        (OUT_OF_MEMORY, r"out of memory while reading a\.jpg alone, 4 times; .*free memory"),
        (NODE_DIED, r"a machine was lost \(node 7 is gone\) while reading a\.jpg alone, 4 times"),
    ],
)
def test_a_machine_that_cannot_tell_ends_the_run_and_names_no_culprit(
    monkeypatch: pytest.MonkeyPatch, death: Death, message: str
) -> None:
    left, start = outcomes(monkeypatch, *[death] * (LOSSES + 1))
    with pytest.raises(IncompleteError, match=message) as error:
        crash_isolation._kills_alone("a.jpg", start)
    assert "\n" not in str(error.value)
    assert left == [death], "the tries are bounded"


def test_a_lost_block_is_repeated_without_its_crashing_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, (b0, b1) = BLOCKS[0].entries[0], BLOCKS[1].entries
    calls: list[tuple[list[str], dict[FileInfo, str], int]] = []
    tried: list[tuple[list[FileInfo], object]] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[FileInfo, str], max_lost: int
    ) -> set[str]:
        calls.append(([block.name for block in blocks], dict(preset_status), max_lost))
        return {block.name for block in blocks if block.name == "c" or b1 in preset_status}

    def find(images: list[FileInfo], start: object) -> list[FileInfo]:
        tried.append((images, start))
        return [b1]

    monkeypatch.setattr(crash_isolation, "find_crashing", find)
    start: Any = object()
    run_with_isolation(BLOCKS, run_blocks, start, held=8, crashing=[known])
    first, second = calls
    assert first == (["a", "b", "c"], {known: CRASH}, 24)
    assert second == (["a", "b"], {known: CRASH, b1: CRASH}, 24)
    assert tried == [([BLOCKS[0].entries[1], b0, b1], start)], "the known one is not tried"


def test_the_last_pass_may_lose_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[int] = []

    def run_blocks(
        blocks: Sequence[Block], preset_status: Mapping[FileInfo, str], max_lost: int
    ) -> set[str]:
        allowed.append(max_lost)
        return set()

    monkeypatch.setattr(crash_isolation, "find_crashing", lambda *_: [])
    start: Any = object()
    run_with_isolation(BLOCKS, run_blocks, start)
    assert allowed == [LOST_BLOCKS] * (PASSES - 1) + [0]
