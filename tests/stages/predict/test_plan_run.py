"""The plan of a prediction: the run's folder and the shards that it still needs."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.pairs import draw_pair
from support.shard_files import rows_of
from support.survival import draw
from support.watched import make_model

from carvana_ray import storage
from carvana_ray.checkpoints.model import load_manifest
from carvana_ray.config import PredictFlags
from carvana_ray.data.catalog import Catalog, load_catalog
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.predict import plan_run as module
from carvana_ray.stages.predict.plan_run import PredictInput, PredictRun, plan_run
from carvana_ray.storage import FileInfo
from carvana_ray.submission.shards import serialize_shard, shard_key

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)  # as `ray_session` has it


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", [draw_pair(0, (320, 480))[0]])
    return tmp_path / "model"


def planned(model: Path, images: int, **flags: Any) -> PredictRun:
    entries = [FileInfo(f"{number}.jpg", 1, "1") for number in range(images)]
    catalog = Catalog("/photos", entries, [entry.name for entry in entries], None, {})
    values = {"model": str(model), "out": str(model.parent / "out"), "device": "cpu", **flags}
    given = PredictInput(load_manifest(str(model)), catalog, "")
    return plan_run(PredictFlags(**values), HERE, given)


def test_images_that_are_not_planned_yet_get_a_new_part(model: Path) -> None:
    runs = [planned(model, images, shard_size=2) for images in (3, 3, 6)]
    assert len({run.folder for run in runs}) == 1
    assert [len(run.pending.tasks) for run in runs] == [2, 2, 4]
    plans = sorted(Path(runs[0].folder).glob("plan-*.json"))
    assert [len(json.loads(plan.read_text())["pictures"]) for plan in plans] == [3, 3]


def test_images_that_crashed_in_an_earlier_run_are_tried_alone_before_all_others(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(shard: int, statuses: list[str]) -> None:
        part, run = first.parts[0], storage.name(first.folder)
        data = serialize_shard(rows_of(part.shard(shard), statuses), shard_key(run, part, shard))
        storage.write_atomic(storage.join(first.folder, part.shard_name(shard)), data)

    first = planned(model, 6, shard_size=2)
    for shard in range(3):
        put(shard, ["ok", "ok" if shard == 1 else "crash: it kills"])
    tried: list[list[str]] = []
    crashing: list[FileInfo] = []

    def find(images: list[FileInfo], start: object) -> list[FileInfo]:
        tried.append([image.name for image in images])
        return crashing

    monkeypatch.setattr(module, "find_crashing", find)
    run = planned(model, 6)
    assert [task.shard for task in run.pending.tasks] == [0, 2], "the cause is gone"
    assert tried == [["1.jpg", "5.jpg"]]
    crashing.append(first.parts[0].images[1])
    run = planned(model, 6)
    assert [task.shard for task in run.pending.tasks] == [2]
    assert (run.pending.bad, run.pending.crashing) == (1, crashing)
    assert planned(model, 6, merge_only=True).pending.tasks == [], "which starts no process"
    assert len(tried) == 2


@pytest.mark.ray
def test_an_image_that_cannot_be_reached_ends_a_verification_in_one_line(
    model: Path, ray_session: None, tmp_path: Path
) -> None:
    names = draw(tmp_path / "photos", 0, 3)
    catalog = load_catalog(str(tmp_path / "photos"), 0, False)
    (tmp_path / "photos" / names[1]).write_bytes(b"replaced after the listing")
    values = {"model": str(model), "out": str(tmp_path / "out"), "device": "cpu", "verify": True}
    given = PredictInput(load_manifest(str(model)), catalog, "")
    with pytest.raises(IncompleteError, match=f"--verify: .*{names[1]} cannot .*: it changed"):
        plan_run(PredictFlags(**values), HERE, given)


def test_merge_only_plans_and_predicts_nothing(model: Path) -> None:
    with pytest.raises(InputError, match="--merge-only: 1 image not planned yet"):
        planned(model, 1, merge_only=True)
    run = planned(model, 1)
    with pytest.raises(InputError, match=r"missing shards: 1 of 1, .*/shards/00000-of-00001"):
        planned(model, 1, merge_only=True)
    assert len(storage.list_files(run.folder, (".json",))) == 1
