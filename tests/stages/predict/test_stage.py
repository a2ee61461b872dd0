"""The rounds of a prediction, its blocks and the tally of its shards."""

import contextlib
import dataclasses
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from carvana_ray import config
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.quarantine import CRASH, NOT_LISTED
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.runtime.progress import ProgressMeter
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.predict import publish, stage
from carvana_ray.stages.predict.stage import ShardTally, failure_limits
from carvana_ray.storage import FileInfo
from carvana_ray.submission.merge import MergeSummary, OvertakenError
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.shards import PendingShards, ShardTask


def tally(progress: ProgressMeter, bad: int = 0, **flags: Any) -> ShardTally:
    limits = failure_limits(config.PredictFlags(**flags), "/photos", 100)
    return ShardTally(limits, progress, bad)


def row(
    file: str, rows: int = 4, bad: int = 0, problem: str = "", usable: bool = True
) -> dict[str, Any]:
    example = "a.jpg (mode)" if bad else ""
    return {
        "file": file,
        "rows": rows,
        "bad": bad,
        "example": example,
        "problem": problem,
        "usable": usable,
    }


def test_the_tally_counts_images_and_names_the_shards() -> None:
    progress = ProgressMeter("predict", 8)
    shards = tally(progress)
    assert [shards.add(row(file)) for file in ("a", "b")] == ["a", "b"]
    assert progress.done == 8


def test_bad_images_of_earlier_runs_count_towards_the_limit() -> None:
    tally(ProgressMeter("predict", 8), bad=99).add(row("a", bad=1))
    with pytest.raises(InputError, match=r"101 .*a\.jpg \(mode\)"):
        tally(ProgressMeter("predict", 8), bad=100).add(row("a", bad=1))
    allowed = tally(ProgressMeter("predict", 8), 100, on_bad_picture="empty", max_bad=101)
    allowed.add(row("a", bad=1))


def test_a_good_shard_after_many_bad_images_does_not_end_the_run() -> None:
    """The message would have to name a bad image of this shard."""
    tally(ProgressMeter("predict", 8), bad=1000).add(row("a"))


def test_shards_that_cannot_be_written_end_the_run_after_some_in_a_row() -> None:
    shards = tally(ProgressMeter("predict", 80))
    for name in ["a"] * 7 + ["written"] + ["b"] * 7:
        problem = "" if name == "written" else "disk full"
        shards.add(row(name, rows=0, problem=problem, usable=not problem))
    with pytest.raises(IncompleteError, match=r"15 shards .*disk full"):
        shards.add(row("7", rows=0, problem="disk full", usable=False))


def test_shards_with_an_unreachable_image_each_do_not_end_the_run() -> None:
    shards = tally(ProgressMeter("predict", 80))
    for number in range(50):
        shards.add(row(f"{number}", rows=0, problem="b.jpg (unreachable)"))
    with pytest.raises(IncompleteError, match=r"50 shards .*b\.jpg"):
        shards.limits.raise_if_failed()


@pytest.mark.parametrize(
    ("images", "flags", "limit"),
    [
        (400, {}, 100),
        (50_000, {}, 500),
        (50_000, {"on_bad_picture": "empty", "max_bad": 2000}, 2000),
        (50_000, {"on_bad_picture": "empty", "max_bad": 7}, 500),
        (50_000, {"max_bad": 2000}, 500),
    ],
)
def test_max_bad_raises_the_limit_only_if_bad_images_get_empty_masks(
    images: int, flags: dict[str, Any], limit: int
) -> None:
    limits = failure_limits(config.PredictFlags(**flags), "/photos", images)
    limits.count_bad(limit, "w.jpg (not-an-image)")
    with pytest.raises(InputError, match=rf"/photos: {limit + 1} bad images so far"):
        limits.count_bad(limit + 1, "x.jpg (not-an-image)")


def test_images_that_are_no_longer_listed_are_not_read() -> None:
    old = [FileInfo(f"{name}.jpg", 1, "1") for name in "abcd"]
    replaced = dataclasses.replace(old[1], version="2")
    task = ShardTask(PlanPart(1, tuple(old), 1), 0)
    catalog = Catalog("/photos", [old[0], replaced, old[2]], ["a.jpg", "b.jpg", "c.jpg"], None, {})
    (row,) = stage.block_rows(catalog, [task], {old[2]: CRASH, old[3]: CRASH})
    assert row["names"] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert row["preset_status"] == ["", NOT_LISTED, CRASH, NOT_LISTED]


def test_each_run_makes_its_shards_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise eight shards that cannot be made would end each run before all others."""
    part = PlanPart(1, tuple(FileInfo(f"{n}.jpg", 1, "1") for n in range(50)), 50)
    orders: list[list[int]] = []

    def note(tasks: list[ShardTask], *_: object, **__: object) -> None:
        orders.append([task.shard for task in tasks])

    monkeypatch.setattr(stage, "run_with_isolation", note)
    run: Any = SimpleNamespace(
        flags=config.PredictFlags(),
        catalog=SimpleNamespace(folder="/photos", entries=part.images),
        pending=PendingShards([ShardTask(part, shard) for shard in range(50)], 50, 0, []),
        workers=SimpleNamespace(count=1),
        masks=None,
        engine=SimpleNamespace(held=0, try_chain=lambda masks: None),
        model=SimpleNamespace(blamed=contextlib.nullcontext),
    )
    for _ in range(2):
        stage.predict_pending(run)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))


class Rounds:
    """A prediction without work that is overtaken some times before it publishes."""

    def __init__(self, overtaken: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listings, self._overtaken = 0, overtaken
        for name in ("announce_run", "publish"):
            monkeypatch.setattr(stage, name, lambda *_: None)
        monkeypatch.setattr(stage, "predict_pending", lambda run: 7.0 * len(run.pending.tasks))
        for name in ("list_input", "plan_run", "merge_run"):
            monkeypatch.setattr(stage, name, getattr(self, name))

    def list_input(self, flags: config.PredictFlags, manifest: str) -> SimpleNamespace:
        self.listings += 1
        return SimpleNamespace(manifest=manifest)

    def plan_run(self, *_: object) -> SimpleNamespace:
        """Return a run of three shards; in the first round two are to make."""
        tasks = [ShardTask(PlanPart(1, (), 1), 0)] * (0 if self.listings else 2)
        catalog = SimpleNamespace(order=["a.jpg"], skipped={".txt": 1})
        return SimpleNamespace(catalog=catalog, pending=PendingShards(tasks, 3, 0, []))

    def merge_run(self, _: object) -> MergeSummary:
        if self.listings < self._overtaken:
            raise OvertakenError("another run has published s.csv since the images were listed")
        return MergeSummary(4)


def run_rounds() -> dict[str, Any]:
    checked: Any = SimpleNamespace(manifest="the model of the first round")
    return stage.run(config.PredictFlags(), ClusterResources(2, 0, 1), checked)


@pytest.mark.parametrize("overtaken", [0, 1, 4])
def test_a_run_that_is_overtaken_lists_the_images_again(
    overtaken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds(overtaken, monkeypatch)
    result = run_rounds()
    assert rounds.listings == overtaken
    assert (result["shards"], result["resumed_shards"]) == (3, 1)
    assert result["images_per_second"] == 14


def test_a_run_that_is_always_overtaken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(99, monkeypatch)
    with pytest.raises(IncompleteError, match=r"published s\.csv since .*, 5 times\. Run again"):
        run_rounds()
    assert rounds.listings == stage.MAX_ROUNDS - 1


def test_the_review_runs_while_the_masks_are_merged_and_writes_after_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    measured, run = threading.Event(), SimpleNamespace(flags=config.PredictFlags())
    for name in ("out", "folder", "parts", "catalog", "engine"):
        setattr(run, name, None)

    def review_masks(*args: Any) -> tuple[dict[str, Any], dict[str, int]]:
        order.append("measured")
        measured.set()
        if args[-1]():
            order.append("written")
        return {"listed": 3}, {}

    def merge_run(_: object) -> MergeSummary:
        assert measured.wait(10)
        order.append("merged")
        return MergeSummary(4, state="of this run")

    monkeypatch.setattr(publish, "review_masks", review_masks)
    monkeypatch.setattr(publish.merge, "is_current", lambda _, summary: bool(summary.state))
    monkeypatch.setattr(stage, "merge_run", merge_run)
    merged, reviewing = stage.merge_and_review(run)  # type: ignore[arg-type]
    assert reviewing.result(10) == ({"listed": 3}, {})
    assert (merged.state, order) == ("of this run", ["measured", "merged", "written"])


def test_a_merge_that_fails_waits_for_the_review_which_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, ended = SimpleNamespace(flags=config.PredictFlags()), list[str]()
    for name in ("out", "folder", "parts", "catalog", "engine"):
        setattr(run, name, None)

    def review_masks(*args: Any) -> None:
        time.sleep(0.1)
        ended.append("measured")
        args[-1]()
        ended.append("written")

    def merge_run(_: object) -> MergeSummary:
        raise OvertakenError("another run was faster")

    monkeypatch.setattr(publish, "review_masks", review_masks)
    monkeypatch.setattr(stage, "merge_run", merge_run)
    with pytest.raises(OvertakenError):
        stage.merge_and_review(run)  # type: ignore[arg-type]
    assert ended == ["measured"]
