"""The chains of a cut-out job: what travels to their tasks."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.data import csv_reader
from carvana_ray.errors import IncompleteError
from carvana_ray.stages.cutout import chains
from carvana_ray.stages.cutout.chains import ROWS_AT_ONCE, CutoutJob, measuring, writing
from carvana_ray.stages.cutout.write_cutouts import CutoutWriter
from carvana_ray.storage import FileInfo

STYLE = CutoutStyle(soft=False, background=None, format="png", mask_only=True)


def test_a_suspect_image_travels_with_its_own_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of the batch together are 36 MB."""
    entries = [FileInfo(f"{number:05d}.jpg", 1, "1") for number in range(ROWS_AT_ONCE)]
    rows = [
        f"{entry.name},{'7 1 ' * 500}{number + 2_000} 1" for number, entry in enumerate(entries)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["img,rle_mask", *rows]))
    trials: list[tuple[bytes, bytes]] = []

    def note(work: Callable[[Any], object], input_of: Callable[[FileInfo], object]) -> None:
        trials.append((cloudpickle.dumps(work), cloudpickle.dumps(input_of(entries[7]))))

    engine: Any = SimpleNamespace(try_map=note)
    monkeypatch.setattr(chains, "run_with_isolation", lambda *_: None)
    writer = CutoutWriter(str(tmp_path), str(tmp_path / "out"), STYLE)
    uri = str(tmp_path / "rows.csv")
    digests = csv_reader.digests(uri, [entry.name for entry in entries])
    job = CutoutJob(entries, {}, writing(writer, {}, {}), engine, lambda results: None)
    job.run_submission(uri, digests, 1)
    [(work, row)] = trials
    assert b" 2007 1" in row
    assert len(work) < 10_000
    assert len(row) < 10_000


def test_a_submission_that_is_exchanged_meanwhile_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CutoutJob, "_run_texts", lambda *_: None)
    uri = str(tmp_path / "rows.csv")
    Path(uri).write_text("img,rle_mask\na.jpg,1 1\nb.jpg,2 2\n")
    digests = csv_reader.digests(uri, ["a.jpg", "b.jpg"])
    entries = [FileInfo("a.jpg", 1, "1"), FileInfo("b.jpg", 1, "1")]
    engine: Any = SimpleNamespace()
    job = CutoutJob(entries, {}, measuring("/photos"), engine, lambda results: None)
    job.run_submission(uri, digests, 1)
    Path(uri).write_text("img,rle_mask\na.jpg,1 1\nb.jpg,2 3\n")
    with pytest.raises(IncompleteError, match=r"rows\.csv: the row of b\.jpg has changed"):
        job.run_submission(uri, digests, 1)
