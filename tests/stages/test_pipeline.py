"""The pipeline's steps use one model: the one that its training made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from support.models import write_model

from carvana_ray import config
from carvana_ray.checkpoints.model import load_manifest
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages import pipeline
from carvana_ray.unet.network import UNet

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)
RESULT: dict[str, Any] = {
    "images": 1,
    "seconds": 1.0,
    "dice": 0.5,
    "report": "",
    "val_dice": 0.5,
    "shards": 1,
    "submission": "",
    "bad": 0,
}


@pytest.mark.parametrize(
    ("written", "run", "refused"),
    [
        ("nothing", "", False),
        ("by training", "another run", True),
        ("by training", "our run", False),  # another training of the same run
        ("by evaluate", "another run", True),
        ("by evaluate", "our run", True),
    ],
)
def test_all_steps_use_the_model_that_the_training_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, run: str, refused: bool
) -> None:
    """`written` says during which step another training writes its model to the same folder."""
    model, used = tmp_path / "model", list[str]()

    def step(name: str, *checked: Any) -> dict[str, Any]:
        used.extend(manifest.sha256 for manifest in checked)
        if written == f"by {name}":
            write_model(model, UNet(base=2), run=run)
        return {**RESULT, "model": str(model)}

    def train(*_: object) -> dict[str, Any]:
        write_model(model, UNet(base=2), run="our run")
        return step("training")

    def check(*_: object) -> SimpleNamespace:
        return SimpleNamespace(model=str(model), manifest=load_manifest(str(model)))

    def stage(name: str) -> Any:
        return SimpleNamespace(check=check, run=lambda *a: step(name, a[2].manifest))

    monkeypatch.setattr(pipeline, "evaluate", stage("evaluate"))
    monkeypatch.setattr(pipeline, "predict", stage("predict"))
    training = SimpleNamespace(check=lambda _: SimpleNamespace(run_id="our run"), run=train)
    monkeypatch.setattr(pipeline, "train", training)
    monkeypatch.setattr(pipeline, "add_section", lambda *_: None)
    monkeypatch.setattr(pipeline, "receipts", MagicMock())
    monkeypatch.setattr(pipeline, "_finished", lambda *_: None)
    flags = config.PipelineFlags(data="/photos", out=str(tmp_path), quiet=True)
    if refused:
        with pytest.raises(IncompleteError, match=f"--out {model}: another training") as error:
            pipeline.run(flags, HERE)
        assert "\n" not in str(error.value)
        assert len(used) == (written == "by evaluate"), "no later step has begun"
    else:
        pipeline.run(flags, HERE)
        assert used == [load_manifest(str(model)).sha256] * 2
