"""The plan of a prediction: the run's folder and the shards that it still needs."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.pairs import draw_pair
from support.watched import make_model

from carvana_ray import storage
from carvana_ray.checkpoints.model import load_manifest
from carvana_ray.config import PredictFlags
from carvana_ray.data.catalog import Catalog
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.predict.plan_run import PredictInput, PredictRun, plan_run
from carvana_ray.storage import FileInfo


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", [draw_pair(0, (320, 480))[0]])
    return tmp_path / "model"


def planned(model: Path, images: int, **flags: Any) -> PredictRun:
    entries = [FileInfo(f"{number}.jpg", 1, "1") for number in range(images)]
    catalog = Catalog("/photos", entries, [entry.name for entry in entries], None, {})
    values = {"model": str(model), "out": str(model.parent / "out"), "device": "cpu", **flags}
    cluster = ClusterResources(cpus=2, gpus=0, nodes=1)
    return plan_run(
        PredictFlags(**values), cluster, PredictInput(load_manifest(str(model)), catalog, "")
    )


def test_images_that_are_not_planned_yet_get_a_new_part(model: Path) -> None:
    runs = [planned(model, images, shard_size=2) for images in (3, 3, 6)]
    assert len({run.folder for run in runs}) == 1
    assert [len(run.pending.tasks) for run in runs] == [2, 2, 4]
    plans = sorted(Path(runs[0].folder).glob("plan-*.json"))
    assert [len(json.loads(plan.read_text())["pictures"]) for plan in plans] == [3, 3]


def test_merge_only_plans_and_predicts_nothing(model: Path) -> None:
    with pytest.raises(InputError, match="--merge-only: 1 image not planned yet"):
        planned(model, 1, merge_only=True)
    run = planned(model, 1)
    with pytest.raises(InputError, match=r"missing shards: 1 of 1, .*/shards/00000-of-00001"):
        planned(model, 1, merge_only=True)
    assert len(storage.list_files(run.folder, (".json",))) == 1
