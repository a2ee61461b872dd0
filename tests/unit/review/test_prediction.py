"""Which images and which submission a folder of results is about, and the command that made it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.reviews import write_prediction

from carvana_ray import config
from carvana_ray.config import cli
from carvana_ray.errors import InputError
from carvana_ray.review.prediction import Prediction, find_prediction


def find(root: Path, **flags: Any) -> Prediction:
    return find_prediction(config.ReviewFlags(out=str(root / "out"), **flags))


def test_the_report_names_the_images_and_the_submission(tmp_path: Path) -> None:
    write_prediction(tmp_path, ["a.jpg"], submission="mine.csv", model="starter", limit=5)
    (tmp_path / "out" / "submission.csv").write_text("of an earlier run")
    found = find(tmp_path)
    assert found.images == str(tmp_path / "photos")
    assert found.submission == str(tmp_path / "out" / "mine.csv")


def test_the_next_command_is_the_earlier_one_with_corrections(tmp_path: Path) -> None:
    flags = {"model": "old model", "limit": 5, "on_bad_picture": "empty", "max_bad": 3}
    write_prediction(tmp_path, ["a.jpg"], **flags, verify=True, merge_only=True, quiet=True)
    name, *words = find(tmp_path).next_words("my corrections")
    assert name == "predict"
    expected = config.PredictFlags(
        data=str(tmp_path / "photos"),
        out=str(tmp_path / "out"),
        corrections="my corrections",
        **flags,
    )
    assert cli.parse(config.PredictFlags, "predict", words) == expected


def test_a_folder_of_kaggle_is_named_as_it_was_given(tmp_path: Path) -> None:
    write_prediction(tmp_path, ["a.jpg"])
    (tmp_path / "photos").rename(tmp_path / "test")
    path = tmp_path / "out" / "report" / "predict.json"
    body = json.loads(path.read_text())
    body["lineage"]["data"]["folder"] = str(tmp_path / "test")
    for given, shown in ((tmp_path, tmp_path), ("gone", tmp_path / "test")):
        body["lineage"]["configuration of this job"]["data"] = str(given)
        path.write_text(json.dumps(body))
        assert find(tmp_path).images == str(tmp_path / "test")
        assert find(tmp_path).command.data == str(shown)
    path.unlink()
    assert find(tmp_path, data=str(tmp_path)).images == str(tmp_path / "test")


@pytest.mark.parametrize("record", [None, "{", "[]", "{}", '{"lineage": 1, "result": []}'])
def test_without_a_record_the_flag_names_the_images(tmp_path: Path, record: str | None) -> None:
    write_prediction(tmp_path, ["a.jpg"])
    path = tmp_path / "out" / "report" / "predict.json"
    path.unlink()
    if record is not None:
        path.write_text(record)
    with pytest.raises(InputError, match="--data is missing"):
        find(tmp_path)
    found = find(tmp_path, data=str(tmp_path / "photos"))
    assert found.images == str(tmp_path / "photos")
    assert found.submission == str(tmp_path / "out" / "submission.csv")
    assert found.command == config.PredictFlags(
        data=str(tmp_path / "photos"), out=str(tmp_path / "out")
    )


def test_a_folder_that_is_gone_is_named_with_the_flag(tmp_path: Path) -> None:
    write_prediction(tmp_path, ["a.jpg"])
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"--data is missing: .*/photos.*does not exist"):
        find(tmp_path)
    assert find(tmp_path, data=str(tmp_path / "moved")).images == str(tmp_path / "moved")


def test_the_submission_may_be_compressed_or_named(tmp_path: Path) -> None:
    write_prediction(tmp_path, ["a.jpg"])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"no other\.csv; predict writes it"):
        find(tmp_path, submission="other.csv")
    (out / "other.csv").write_text("")
    assert find(tmp_path, submission="other.csv").submission == str(out / "other.csv")
    assert find(tmp_path, submission="other.csv").command.submission == "other.csv"
    (out / "submission.csv").rename(out / "submission.csv.gz")
    assert find(tmp_path).submission == str(out / "submission.csv.gz")
    (out / "submission.csv.gz").unlink()
    with pytest.raises(InputError, match=r"no submission\.csv or submission\.csv\.gz; predict"):
        find(tmp_path)
