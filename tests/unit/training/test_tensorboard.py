"""Event files, read by TensorBoard's own reader: the history, each epoch once."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import s3_servers

from carvana_ray import config, storage
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages import pipeline
from carvana_ray.stages.train import stage as train
from carvana_ray.training import tensorboard as events

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each tag, as TensorBoard reads them."""
    reason = "the package tensorboard is not installed"
    module = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(module, reason=reason).EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def expected(history: list[dict[str, float]]) -> dict[str, Any]:
    """Return what the reader should find: float32 of each row's figures."""
    return {
        tag: [(row["epoch"], pytest.approx(row[key], rel=1e-6)) for row in history]
        for key, tag in events.TAGS.items()
        if key in history[0]
    }


def rows(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": epoch} | {key: epoch + place / 16 for place, key in enumerate(events.TAGS)}
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def tensorboard() -> None:
    """Skip if the package is not installed."""
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")


@pytest.mark.usefixtures("tensorboard")
def test_events_are_the_history(tmp_path: Path) -> None:
    events.write_missing(str(tmp_path), rows(12))
    assert read_back(tmp_path) == expected(rows(12))


@pytest.mark.usefixtures("tensorboard")
def test_without_validation_there_are_no_validation_scalars(tmp_path: Path) -> None:
    history = [
        {key: value for key, value in row.items() if not key.startswith("val_")} for row in rows(2)
    ]
    events.write_missing(str(tmp_path), history)
    found = read_back(tmp_path)
    assert found == expected(history)
    assert not [tag for tag in found if "validation" in tag]


@pytest.mark.usefixtures("tensorboard")
def test_each_epoch_appears_once_whatever_file_is_lost(tmp_path: Path) -> None:
    for epoch in range(1, 4):
        events.write_missing(str(tmp_path), rows(epoch), fresh=True)
    (tmp_path / events.file_name({"epoch": 2})).unlink()  # killed before it was written
    again = [*rows(2), {**rows(3)[2], "loss": 0.5}]  # the checkpoint is lost: it is trained again
    events.write_missing(str(tmp_path), again, fresh=True)
    assert read_back(tmp_path) == expected(again)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    events.write_missing(str(tmp_path), again)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("tensorboard")
def test_events_are_in_s3_too(
    s3: s3_servers.Server, bucket: Callable[[s3_servers.Server], str], tmp_path: Path
) -> None:
    place = f"{bucket(s3)}/runs/first/{events.FOLDER}"
    for epoch in (1, 2):
        events.write_missing(place, rows(epoch), fresh=True)
    for entry in storage.list_files(place):
        (tmp_path / entry.name).write_bytes(storage.read(storage.join(place, entry.name)))
    assert read_back(tmp_path) == expected(rows(2))


def test_without_the_package_one_line_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    flags: dict[str, Any] = {"out": str(tmp_path), "tensorboard": True}
    for check in (
        lambda: train.check(config.TrainFlags(data=str(data), **flags)),
        lambda: pipeline.check(config.PipelineFlags(**flags)),
        lambda: pipeline.check(config.PipelineFlags(data=str(data), **flags)),
    ):
        with pytest.raises(InputError, match="pip install tensorboard") as caught:
            check()
        assert "\n" not in str(caught.value)
    without = config.TrainFlags(data=str(data), out=str(tmp_path))
    assert train.check(without), "only --tensorboard needs the package"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("tensorboard")
def test_a_resumed_training_has_each_epoch_once(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    flags = config.TrainFlags(
        data=str(data),
        out=str(tmp_path),
        epochs=3,
        downscale=8,
        base=4,
        batch_size=8,
        holdout_cars="5",
        val_cars="1",
        tensorboard=True,
    )
    train.run(flags, HERE)
    (folder,) = (tmp_path / events.FOLDER).iterdir()
    history = json.loads((tmp_path / "model/history.json").read_text())
    assert read_back(folder) == expected(history)

    shutil.rmtree(tmp_path / "model")  # as if it had been killed in its last epoch
    shutil.rmtree(tmp_path / "checkpoints" / folder.name / "epoch-0003")
    (folder / events.file_name({"epoch": 2})).unlink()
    train.run(flags, HERE)
    again = json.loads((tmp_path / "model/history.json").read_text())
    assert [row["epoch"] for row in again] == [1, 2, 3]
    assert again[2]["seconds"] != history[2]["seconds"], "it was trained again"
    assert read_back(folder) == expected(again)

    shutil.rmtree(folder)  # as if --tensorboard were given only after training
    train.run(flags, HERE)
    assert read_back(folder) == expected(again)
