"""Event files, read by TensorBoard's own reader: the history, each epoch once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import s3_servers
from support.event_files import expected, read_back

from carvana_ray import storage
from carvana_ray.training import tensorboard as events


def rows(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": epoch} | {key: epoch + index / 16 for index, key in enumerate(events.TAGS)}
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
