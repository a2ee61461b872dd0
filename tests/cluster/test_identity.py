"""What a run was planned with is what it uses: the model and the images, in every process."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.blocks import batch_of, listed
from support.pairs import draw_pair
from support.survival import HERE, draw, predicted, shards_in
from support.watched import SIZE, make_model

from carvana_ray import config, rle, storage
from carvana_ray.checkpoints.model import ModelRef, load_manifest
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages import evaluate
from carvana_ray.stages.cutout import stage as cutout
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict import plan_run
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.predict.mask_predictor import MaskPredictor

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder. Its masks all differ and have no meaning."""
    folder = tmp_path_factory.mktemp("identity") / "model"
    make_model(folder, [draw_pair(seed, SIZE)[0] for seed in range(20)])
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The folder of another model."""
    make_model(tmp_path / "other", [draw_pair(seed, SIZE)[0] for seed in range(20, 22)])
    return tmp_path / "other"


@pytest.mark.slow
@pytest.mark.parametrize("stage", [predict, evaluate, cutout], ids=lambda stage: stage.__name__)
def test_no_mask_is_of_a_model_that_was_exchanged_after_the_check(
    stage: Any, model: Path, other: Path, data: Path, ray_session: None, tmp_path: Path
) -> None:
    ours = shutil.copytree(model, tmp_path / "model")
    manifest = json.loads((ours / "manifest.json").read_text())
    manifest["holdout_cars"] = ["000000000001"]
    (ours / "manifest.json").write_text(json.dumps(manifest))
    kind = {
        predict: config.PredictFlags,
        evaluate: config.EvaluateFlags,
        cutout: config.CutoutFlags,
    }[stage]
    flags = kind(data=str(data), model=str(ours), out=str(tmp_path / "out"))
    checked = stage.check(flags)
    shutil.copytree(other, ours, dirs_exist_ok=True)
    with pytest.raises(InputError, match=f"--model {ours}: another model was written there"):
        stage.run(flags, HERE, checked)
    written = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written <= {".json"}, "plans, and the index of cut-outs"


def test_a_replica_that_starts_again_does_not_take_another_model(
    model: Path, other: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, gone = shutil.copytree(model, tmp_path / "model"), tmp_path / "gone"

    class DiesOnce(MaskPredictor):
        """A replica whose process dies in its third call, just when another model is written."""

        calls = 0

        def __call__(self, batch: Any) -> Any:
            self.calls += 1
            if self.calls == 3 and not gone.exists():
                gone.touch()
                shutil.copytree(other, ours, dirs_exist_ok=True)
                os._exit(1)
            return super().__call__(batch)

    monkeypatch.setattr(plan_run, "MaskPredictor", DiesOnce)
    names = draw(tmp_path / "photos", 0, 60)
    with pytest.raises(InputError, match=f"--model {ours}: another model was written there"):
        predicted(tmp_path / "photos", ours, tmp_path / "out", shard_size=4, workers=1)
    assert gone.exists()
    rows = [
        row
        for shard in tmp_path.glob("out/predict/*/shards/*.parquet")
        for row in pq.read_table(shard).to_pylist()
    ]
    assert 4 <= len(rows) < len(names)
    expected = masks_of(model, tmp_path / "photos", [row["img"] for row in rows])
    assert [row["rle_mask"] for row in rows] == expected
    assert expected != masks_of(other, tmp_path / "photos", [row["img"] for row in rows])


def masks_of(model: Path, photos: Path, names: list[str]) -> list[str]:
    """Return the run-length texts of a model's masks."""
    replica = MaskPredictor(
        ModelRef(str(model), load_manifest(str(model)).sha256), WorkerAllocation(1, 1, False)
    )
    row = batch_of(block_row("", listed(photos, names)))
    masks = replica(read_images(row, ReadOptions(str(photos), 8, SIZE, SIZE)))
    return [rle.text_from_bounds(bounds) for bounds in masks["run_bounds"]]


@pytest.fixture(params=["disk", "s3"])
def photos(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a folder for images; in S3 the tasks that read images get the credentials."""
    if request.param == "disk":
        return str(tmp_path / "photos")
    server = request.getfixturevalue("s3")
    environment = server.environment()

    def read(batch: Any, options: ReadOptions) -> Any:
        os.environ.update(environment)
        return read_images(batch, options)

    monkeypatch.setattr(plan_run, "read_images", read)
    return f"{request.getfixturevalue('bucket')(server)}/photos"


@pytest.mark.slow
def test_an_image_that_is_replaced_before_it_is_read_gets_the_mask_of_its_new_version(
    photos: str, model: Path, ray_session: None, tmp_path: Path
) -> None:
    for number in range(8):
        storage.write_atomic(f"{photos}/{number}.jpg", draw_pair(number, SIZE)[0])
    flags = config.PredictFlags(data=photos, model=str(model), out=str(tmp_path), shard_size=4)
    checked = predict.check(flags)
    storage.write_atomic(f"{photos}/5.jpg", draw_pair(20, SIZE)[0], replace=True)
    with pytest.raises(IncompleteError, match=r"5\.jpg \(unreachable: it changed since") as error:
        predict.run(flags, HERE, checked)
    assert "\n" not in str(error.value)
    assert len(shards_in(tmp_path)) == 1
    assert predict.run(flags, HERE)["bad"] == 0
    with (tmp_path / "submission.csv").open() as file:
        rows = dict(line.strip().split(",") for line in file)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/5.jpg").write_bytes(draw_pair(20, SIZE)[0])
    (tmp_path / "new/old.jpg").write_bytes(draw_pair(5, SIZE)[0])
    new, old = masks_of(model, tmp_path / "new", ["5.jpg", "old.jpg"])
    assert rows["5.jpg"] == new != old
