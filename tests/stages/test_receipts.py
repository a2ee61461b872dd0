"""A step has nothing to do only if its input and its files are as an earlier run left them."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models import manifest_of
from support.runs import listed

from carvana_ray import config, storage
from carvana_ray.config.cars_flag import car_pattern
from carvana_ray.data.cars import CarNames
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.corrections import Corrections
from carvana_ray.stages import receipts
from carvana_ray.stages.evaluate import EvaluationJob
from carvana_ray.stages.predict.plan_run import PredictInput

Change = Callable[[Path, Any, Any], Any]  # changes files, or returns other flags and input


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def touch(name: str) -> Change:
    """Same bytes and size, written at another time."""
    return lambda out, *_: os.utime(out / name, ns=(1, 1))


def drop(name: str) -> Change:
    return lambda out, *_: (out / name).unlink()


def flag(**changes: Any) -> Change:
    return lambda _, flags, job: (dataclasses.replace(flags, **changes), job)


def given(**changes: Any) -> Change:
    return lambda _, flags, job: (flags, dataclasses.replace(job, **changes))


def names(rule: str) -> CarNames:
    return CarNames(car_pattern(rule))


def job_of(out: Path) -> EvaluationJob:
    pairs = listed([("a_01.jpg", "a_01_mask.gif")], out / "train", out / "train_masks")
    folders = str(out / "train"), str(out / "train_masks")
    return EvaluationJob("", manifest_of(), [{"epoch": 1.0}], *folders, pairs)


def catalog_of(out: Path) -> Catalog:
    entries = storage.list_files(str(out / "test"))
    order = [entry.name for entry in entries]
    return Catalog(str(out / "test"), entries, order, (1280, 1918), {})


def again(out: Path, flags: Any, job: Any, change: Change | None) -> dict[str, Any] | None:
    """Return what the receipt says after a change, with the folders listed again."""
    flags, job = (change and change(out, flags, job)) or (flags, job)
    if isinstance(job, EvaluationJob):
        job = dataclasses.replace(job, pairs=job_of(out).pairs)
        return receipts.of_evaluation(flags, job).load()
    listing = dataclasses.replace(job.catalog, entries=catalog_of(out).entries)
    return receipts.of_prediction(flags, dataclasses.replace(job, catalog=listing)).load()


EVALUATED: dict[str, Change | None] = {
    "image": touch("train/a_01.jpg"),
    "mask": touch("train_masks/a_01_mask.gif"),
    "other file": lambda out, *_: put(out / "train/notes.txt", ""),
    "flag": flag(workers=3),
    "model": given(manifest=manifest_of(b"other")),
    "training": given(manifest=manifest_of(run="another")),
    "history": given(history=[{"epoch": 2.0}]),
    "cars": given(cars=names("CAR_VIEW")),
    "result": touch("evaluation.json"),
    "table": drop("evaluation.csv"),
    "sheet": drop("sheets/worst.jpg"),
    "part": touch("report/evaluate.json"),
    "page": drop("report.html"),
    "damaged": lambda out, *_: put(out / "receipts/evaluate.json", "[]"),
    "cut off": lambda out, *_: put(out / "receipts/evaluate.json", '{"work": "'),
}


@pytest.mark.parametrize("changed", ["", *EVALUATED])
def test_an_evaluation_has_nothing_to_do_unless_something_has_changed(
    tmp_path: Path, changed: str
) -> None:
    written = "evaluation.json", "evaluation.csv", "sheets/worst.jpg", "report/evaluate.json"
    inputs = "train/a_01.jpg", "train_masks/a_01_mask.gif", "report.html"
    for name in (*written, *inputs):
        put(tmp_path / name, name)
    flags = config.EvaluateFlags(data=str(tmp_path), out=str(tmp_path))
    result = {"dice": 0.5, "report": str(tmp_path / "report.html")}
    job = job_of(tmp_path)
    receipts.write_evaluation(receipts.of_evaluation(flags, job), result)
    put(tmp_path / "report.html", "the page of another command too")
    found = again(tmp_path, flags, job, EVALUATED.get(changed))
    assert found == (None if changed else result)


def catalog(**changes: Any) -> Change:
    return lambda _, flags, job: (
        flags,
        dataclasses.replace(job, catalog=dataclasses.replace(job.catalog, **changes)),
    )


PREDICTED: dict[str, Change | None] = {
    "image": touch("test/a_01.jpg"),
    "new image": lambda out, *_: put(out / "test/a_03.jpg", ""),
    "flag": flag(shard_size=5),
    "model": lambda _, flags, job: (
        flags,
        dataclasses.replace(job, manifest=manifest_of(b"other")),
    ),
    "order": catalog(order=["a_02.jpg", "a_01.jpg"]),
    "size": catalog(size=None),
    "checksums": catalog(crcs={"a_01.jpg": 5}),
    "cars": catalog(cars=names("CAR_VIEW")),
    "skipped": catalog(skipped={".heic": 1}),
    "submission": touch("submission.csv"),
    "marker": touch("submission.json"),
    "review": drop("review.csv"),
    "sheet": drop("sheets/a.jpg"),
    "part": drop("report/predict.json"),
    "page": drop("report.html"),
    "shard": touch("predict/run/shards/0.parquet"),
    "no shard": drop("predict/run/shards/0.parquet"),
    "plan": lambda out, *_: put(out / "predict/run/plan-0002.json", ""),
    "unfinished": drop("predict/run/_SUCCESS.json"),
}


def predicted(out: Path, bad: int = 0) -> tuple[config.PredictFlags, PredictInput, dict[str, Any]]:
    """Write the files of a prediction and its receipt; return flags, input and result."""
    run = "predict/run/plan-0001.json", "predict/run/_SUCCESS.json", "predict/run/shards/0.parquet"
    files = "submission.csv", "review.csv", "report/predict.json", "report.html", "sheets/a.jpg"
    for name in (*run, *files, "sheets/worst.jpg", "test/a_01.jpg", "test/a_02.jpg"):
        put(out / name, name)
    put(out / "submission.json", json.dumps({"run": "run"}))
    flags = config.PredictFlags(data=str(out), out=str(out))
    result = {"bad": bad, "submission": f"{out}/submission.csv", "report": f"{out}/report.html"}
    job = PredictInput(manifest_of(), catalog_of(out), "")
    receipts.write_prediction(receipts.of_prediction(flags, job), flags, result)
    return flags, job, result


@pytest.mark.parametrize("changed", ["", *PREDICTED])
def test_a_prediction_has_nothing_to_do_unless_something_has_changed(
    tmp_path: Path, changed: str
) -> None:
    assert not receipts.may_be_finished(str(tmp_path))
    flags, job, result = predicted(tmp_path)
    assert receipts.may_be_finished(str(tmp_path))
    put(tmp_path / "sheets/worst.jpg", "of another evaluation")
    found = again(tmp_path, flags, job, PREDICTED.get(changed))
    assert found == (None if changed else result)


def test_bad_images_leave_no_receipt(tmp_path: Path) -> None:
    """They may be repaired, and those that crashed a process are tried again by each run."""
    predicted(tmp_path, bad=1)
    assert not receipts.may_be_finished(str(tmp_path))


def test_the_log_flags_change_nothing_but_code_and_packages_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = config.EvaluateFlags(data="/a", out="/b")
    work = receipts.hash_work(flags)
    assert receipts.hash_work(dataclasses.replace(flags, verbose=True)) == work
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "code_hash", lambda: "newer")
        assert receipts.hash_work(flags) != work
    monkeypatch.setattr(receipts.importlib.metadata, "version", lambda name: "newer")
    assert receipts.hash_work(flags) != work


def test_the_hash_of_code_is_that_of_its_files(tmp_path: Path) -> None:
    put(tmp_path / "a/b.py", "1")
    first = receipts.code_hash(tmp_path)
    put(tmp_path / "a/b.pyc", "compiled")
    receipts.code_hash.cache_clear()
    assert receipts.code_hash(tmp_path) == first
    put(tmp_path / "a/b.py", "2")
    receipts.code_hash.cache_clear()
    assert receipts.code_hash(tmp_path) != first


def test_a_corrected_image_is_another_input(tmp_path: Path) -> None:
    put(tmp_path / "test/a_01.jpg", "image")
    flags, listed = config.PredictFlags(out=str(tmp_path)), catalog_of(tmp_path)
    work = set()
    for digest in ("", "0" * 16, "1" * 16):
        found = Corrections({}, {"a_01.jpg": digest} if digest else {})
        entries = [found.mark(image) for image in listed.entries]
        marked = dataclasses.replace(listed, entries=entries)
        job = PredictInput(manifest_of(), marked, "", found)
        work.add(receipts.of_prediction(flags, job).work)
    assert len(work) == 3
