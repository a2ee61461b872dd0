"""`check` says in one line whether Kaggle would accept a file, and otherwise shows ten faults."""

import json
import logging
from pathlib import Path

import pytest

from carvana_ray import config
from carvana_ray.stages import check

NAMES = [f"{car:012x}_{view:02d}.jpg" for car in range(10) for view in range(1, 17)]


def checked(folder: Path, rows: list[str], **flags: object) -> dict:
    (folder / "s.csv").write_text("\n".join(["img,rle_mask", *rows]) + "\n")
    (folder / "sample_submission.csv").write_text(
        "\n".join(["img,rle_mask", *(f"{name},1 1" for name in NAMES)]) + "\n"
    )
    return check.run(config.CheckFlags(submission=str(folder / "s.csv"), **flags))


def test_a_file_without_faults_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    result = checked(tmp_path, [f"{name},1 1" for name in NAMES], data=str(tmp_path))
    assert caplog.messages == ["160 rows: Kaggle would accept it"]
    assert result == {"rows": 160, "ok": True, "faults": [], "counts": {}, "total": 0}


def test_without_a_list_it_does_not_promise_that_kaggle_accepts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    checked(tmp_path, [f"{NAMES[0]},1 1"])
    assert caplog.messages == ["1 row, no fault; --data FOLDER also compares the names"]


def test_many_faults_are_a_summary_ten_examples_and_a_short_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{NAMES[0]},1 1", f"{NAMES[0]},1 1", f"{NAMES[1]},5"]
    result = checked(tmp_path, rows, data=str(tmp_path))
    assert result["counts"] == {"doubled": 1, "odd-count": 1, "missing": 158}
    assert result["total"] == 160
    kinds = [fault["fault"] for fault in result["faults"]]
    assert kinds == ["doubled", "odd-count", *["missing"] * 8], "each kind has an example"
    assert len(json.dumps(result)) < 2000
    first, *examples, last = caplog.messages
    assert first.startswith("3 rows, 160 faults: Kaggle would refuse it (doubled 1, ")
    assert len(examples) == 10
    assert last == "and 150 more faults"
