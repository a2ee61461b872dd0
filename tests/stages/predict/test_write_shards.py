"""Blocks of masks become shards, whole or not at all."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from carvana_ray import storage
from carvana_ray.data.quarantine import NOT_LISTED
from carvana_ray.errors import InputError
from carvana_ray.stages.predict import write_shards as write
from carvana_ray.storage import FileInfo
from carvana_ray.submission import shards
from carvana_ray.submission.plan import PlanPart


def rows_of_shard(file: str, indices: list[int], count: int, status: str = "ok") -> pa.Table:
    n = len(indices)
    return pa.table(
        {
            "file": [file] * n,
            "row": indices,
            "rows": [count] * n,
            "img": [f"{index}.jpg" for index in indices],
            "run_bounds": [np.array([0, 2], np.int32).tobytes()] * n,
            "height": [10] * n,
            "width": [10] * n,
            "crc32": [5] * n,
            "orientation": [1] * n,
            "status": [status] * n,
        }
    )


def test_a_block_may_hold_several_shards_but_no_part_of_one(tmp_path: Path) -> None:
    """Ray Data may join small blocks. A part of a shard must raise an error."""
    entries = tuple(FileInfo(f"{index}.jpg", 1, "1") for index in range(3))
    one, two = PlanPart(1, entries[:2], 1), PlanPart(2, entries, 1)
    run = storage.name(str(tmp_path))
    keys = {part.shard_name(0): shards.shard_key(run, part, 0) for part in (one, two)}
    both = pa.concat_tables(
        [
            rows_of_shard(one.shard_name(0), [0, 1], 2),
            rows_of_shard(two.shard_name(0), [0, 1, 2], 3),
        ]
    )
    written = write.write_shards(both, folder=str(tmp_path), keys=keys)
    assert written["file"].to_pylist() == [one.shard_name(0), two.shard_name(0)]
    assert written["rows"].to_pylist() == [2, 3]
    assert written["problem"].to_pylist() == ["", ""]
    read = shards.read_shard(str(tmp_path), two, 0)
    assert read["img"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert read["rle_mask"].to_pylist() == ["1 2"] * 3
    with pytest.raises(RuntimeError, match="block of 2 rows"):
        write.write_shards(rows_of_shard("c", [0, 1], 3), folder=str(tmp_path), keys={"c": "key"})
    assert not (tmp_path / "c").exists()


def test_a_shard_with_an_unreachable_image_is_not_written(tmp_path: Path) -> None:
    rows = rows_of_shard("shards/a.parquet", [0, 1], 2, "unreachable: Input/output error")
    (result,) = write.write_shards(
        rows, folder=str(tmp_path), keys={"shards/a.parquet": "key"}
    ).to_pylist()
    assert result["problem"] == "0.jpg (unreachable: Input/output error)"
    assert (result["rows"], result["bad"], result["usable"]) == (0, 0, False)
    assert not (tmp_path / "shards").exists()


def test_images_that_are_no_longer_listed_are_neither_bad_nor_done(tmp_path: Path) -> None:
    entries = tuple(FileInfo(f"{index}.jpg", 1, "1") for index in range(4))
    part = PlanPart(1, entries, 1)
    name, key = part.shard_name(0), shards.shard_key(storage.name(str(tmp_path)), part, 0)
    statuses = ["ok", NOT_LISTED, "truncated: 3 bytes", NOT_LISTED]
    rows = rows_of_shard(name, [0, 1, 2, 3], 4).set_column(9, "status", pa.array(statuses))
    (result,) = write.write_shards(rows, folder=str(tmp_path), keys={name: key}).to_pylist()
    assert (result["rows"], result["bad"], result["problem"]) == (2, 1, "")
    assert result["example"] == "2.jpg (truncated: 3 bytes)"
    assert shards.read_shard(str(tmp_path), part, 0)["status"].to_pylist() == statuses
    for today, to_do, bad in ((entries[::2], [], 1), (entries, [name], 0)):
        pending = shards.pending(str(tmp_path), [part], today, {})
        assert ([task.name for task in pending.tasks], pending.bad) == (to_do, bad)
        assert pending.images == 4 * len(to_do)


def test_one_image_that_can_be_reached_shows_that_the_storage_works(tmp_path: Path) -> None:
    """Otherwise images without rights in eight shards would end each run before all others."""
    statuses = ["not-an-image", "unreachable: Permission denied"]
    rows = rows_of_shard("a", [0, 1], 2).set_column(9, "status", pa.array(statuses))
    (result,) = write.write_shards(rows, folder=str(tmp_path), keys={"a": "key"}).to_pylist()
    assert result["problem"] == "1.jpg (unreachable: Permission denied)"
    assert result["usable"]
    (tmp_path / "a").mkdir()  # a folder in the way
    rows = rows_of_shard("a", [0, 1], 2)
    (result,) = write.write_shards(
        rows, folder=str(tmp_path), keys={"a": "key"}, replace=["a"]
    ).to_pylist()
    assert result["problem"].startswith(f"{tmp_path}/a: ")
    assert not result["usable"]


def test_a_folder_that_cannot_be_written_is_a_problem_too(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("a file in the way")
    with pytest.raises(InputError, match="a file is in the way"):
        write.write_shards(
            rows_of_shard("shards/a", [0], 1), folder=str(tmp_path), keys={"shards/a": "key"}
        )


def test_a_corrected_image_is_not_bad(tmp_path: Path) -> None:
    rows = rows_of_shard("shards/a.parquet", [0, 1], 2, "corrected")
    (result,) = write.write_shards(
        rows, folder=str(tmp_path), keys={"shards/a.parquet": "key"}
    ).to_pylist()
    assert (result["rows"], result["bad"], result["example"]) == (2, 0, "")
