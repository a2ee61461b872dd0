"""The chains of a cut-out job: what travels to their tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.stages.cutout import datasets
from carvana_ray.stages.cutout.datasets import ROWS_AT_ONCE, CutoutJob
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

    def isolate(
        blocks: object,
        run: object,
        work: object,
        workers: object,
        input_of: Callable[[FileInfo], Any],
    ) -> None:
        trials.append((cloudpickle.dumps(work), cloudpickle.dumps(input_of(entries[7]))))

    monkeypatch.setattr(datasets, "run_with_isolation", isolate)
    writer = CutoutWriter(str(tmp_path), str(tmp_path / "out"), STYLE)
    CutoutJob(entries, {}, writer, lambda rows: None).render_from_submission(
        str(tmp_path / "rows.csv"), 1
    )
    [(work, row)] = trials
    assert b" 2007 1" in row
    assert len(work) < 10_000
    assert len(row) < 10_000
