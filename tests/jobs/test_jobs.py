"""The jobs as a user runs them: as commands, in another folder, each with its own Ray."""

import csv
import dataclasses
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from support import browser
from support.commands import CANARY, SMALL, Run, result_of

from carvana_ray import config, images, rle
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.inference.predictor import Predictor
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.predict import stage as predict_stage
from carvana_ray.training.run import best_epoch

pytestmark = pytest.mark.ray


def rows_of(path: Path) -> dict[str, str]:
    csv.field_size_limit(10**9)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["img", "rle_mask"]
    return dict(rows)


def test_a_pipeline_writes_all_documented_files(finished: Path, data: Path) -> None:
    for name in (
        "model/model.pt",
        "model/manifest.json",
        "model/history.json",
        "config.json",
        "loss.png",
        "accuracy.png",
        "dice.png",
        "evaluation.json",
        "evaluation.csv",
        "report.html",
        "report/evaluate.json",
        "report/predict.json",
        "report/pipeline.json",
        "review.csv",
        "sheets/worst.jpg",
        "submission.csv",
        "submission.json",
    ):
        assert (finished / name).stat().st_size > 0, name
    manifest = json.loads((finished / "model/manifest.json").read_text())
    assert len(manifest["holdout_cars"]) == 2
    assert len(manifest["val_cars"]) == 1
    history = json.loads((finished / "model/history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for key in ("loss", "dice", "accuracy", "val_loss", "val_dice", "val_accuracy"):
        assert all(0 <= row[key] < 10 for row in history), key
    (run,) = (finished / "predict").iterdir()
    sha256 = hashlib.sha256((finished / "submission.csv").read_bytes()).hexdigest()
    assert json.loads((run / "_SUCCESS.json").read_text())["sha256"] == sha256
    marker = json.loads((finished / "submission.json").read_text())
    assert (marker["sha256"], marker["run"]) == (sha256, run.name)
    assert (run / "shards/00000-of-00001.parquet").exists()
    listed = [line.split(",")[0] for line in (data / "sample_submission.csv").open()][1:]
    assert list(rows_of(finished / "submission.csv")) == listed
    sheets = {path.name for path in (finished / "sheets").iterdir()}
    assert sheets == {"worst.jpg", "000000000008.jpg", "000000000009.jpg"}


def test_the_report_of_a_pipeline_has_all_sections(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    result = json.loads((finished / "evaluation.json").read_text())
    expected = [f"{result['dice']:.4f}", "Cut-outs", "Check first", "Worst masks", "Dice by view"]
    expected += [
        "Training",
        "Run time",
        "SHA-256 of names and CRC-32",
        "mean Dice",
        "layer cut first real",
    ]
    expected.append(json.loads((finished / "model/manifest.json").read_text())["sha256"])
    for words in expected:
        assert words in page, words
    header, *rows = csv.reader((finished / "review.csv").open(newline=""))
    assert header[:4] == ["img", "score", "look", "reasons"]
    assert {row[0] for row in rows} == set(rows_of(finished / "submission.csv"))


@pytest.mark.skipif(browser.program() is None, reason="there is no chromium here")
def test_the_report_of_a_pipeline_opens_in_a_browser(finished: Path) -> None:
    with browser.tab() as tab:
        for width in (1280, 390):
            tab.open(finished / "report.html", width)
            assert tab.messages == []
            assert tab.requests == [(finished / "report.html").as_uri()]
            assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_no_secret_is_in_any_result(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_only_held_out_cars_are_scored(finished: Path) -> None:
    held = set(json.loads((finished / "model/manifest.json").read_text())["holdout_cars"])
    with (finished / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["car"] for row in rows} == held
    assert len(rows) == 16
    summary = json.loads((finished / "evaluation.json").read_text())
    mean = sum(float(row["dice"]) for row in rows) / len(rows)
    assert summary["dice"] == pytest.approx(mean, abs=2e-6)
    assert len(summary["view"]) == 8


def test_the_same_command_again_does_nothing_twice(
    finished: Path, data: Path, run_job: Run
) -> None:
    weights = (finished / "model/model.pt").stat().st_mtime_ns
    shard = next((finished / "predict").glob("*/shards/*.parquet")).stat().st_mtime_ns
    names = "submission.csv", "evaluation.csv", "report/pipeline.json", "report.html"
    files = [(finished / name).read_bytes() for name in names]
    flags = ("--data", data, "--out", finished, "--epochs", 3, *SMALL)
    done = run_job("pipeline", *flags, "--quiet")
    result_of(done)
    assert done.stderr == "", "--quiet"
    assert len(done.stdout.splitlines()) == 1
    assert (finished / "model/model.pt").stat().st_mtime_ns == weights
    assert next((finished / "predict").glob("*/shards/*.parquet")).stat().st_mtime_ns == shard
    assert [(finished / name).read_bytes() for name in names] == files


def predict(run_job: Run, finished: Path, data: Path, out: Path, *flags: object) -> dict:
    model = finished / "model"
    return result_of(run_job("predict", "--data", data, "--model", model, "--out", out, *flags))


@pytest.mark.slow
def test_four_replicas_and_one_write_the_same_bytes(
    finished: Path, data: Path, run_job: Run, tmp_path: Path
) -> None:
    one = predict(run_job, finished, data, tmp_path / "one", "--shard-size", 4)
    assert (one["shards"], one["resumed_shards"], one["bad"]) == (4, 0, 0)
    four = ("--shard-size", 4, "--workers", 4, "--num-cpus", 6)
    predict(run_job, finished, data, tmp_path / "four", *four, "--submission", "s.csv.gz")
    expected = (tmp_path / "one/submission.csv").read_bytes()
    packed = subprocess.run(
        ["gzip", "-dc", str(tmp_path / "four/s.csv.gz")], capture_output=True, check=True
    )
    assert packed.stdout == expected == (finished / "submission.csv").read_bytes()


@pytest.mark.slow
def test_bad_images_hold_the_submission_back_until_they_are_repaired(
    finished: Path, data: Path, run_job: Run, ray_session: None, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    broken = sorted((tmp_path / "data/test").iterdir())[5]
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    out = tmp_path / "out"
    shutil.copytree(finished, out)  # with an older submission
    shutil.rmtree(out / "predict")
    older = [(out / name).read_bytes() for name in ("submission.csv", "submission.json")]
    common = ("--data", tmp_path / "data", "--out", out, "--shard-size", 4)
    done = run_job("pipeline", *common, "--epochs", 3, *SMALL)
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"job", "dice", "submission", "report", "seconds"}
    assert result["submission"] is None
    assert broken.name in done.stderr
    assert [(out / name).read_bytes() for name in ("submission.csv", "submission.json")] == older
    assert "submission.csv is of an earlier run" in done.stderr
    (quarantine,) = out.glob("predict/*/quarantine.csv")
    assert not (quarantine.parent / "_SUCCESS.json").exists()
    assert quarantine.read_text().splitlines()[1].startswith(f"{broken.name},truncated")

    flags = config.PredictFlags(data=str(tmp_path / "data"), out=str(out), shard_size=4)
    here = ClusterResources(cpus=4, gpus=0, nodes=1)
    empty = dataclasses.replace(flags, on_bad_picture="empty", max_bad=1)
    assert predict_stage.run(empty, here)["resumed_shards"] == 4
    assert rows_of(out / "submission.csv")[broken.name] == ""

    broken.write_bytes(good)
    assert predict_stage.run(flags, here)["bad"] == 0
    assert (out / "submission.csv").read_bytes() == (finished / "submission.csv").read_bytes()


@pytest.mark.slow
def test_images_of_any_name_and_size_need_no_list(
    finished: Path, run_job: Run, tmp_path: Path
) -> None:
    from support.pairs import draw_pair

    folder = tmp_path / "photos"
    folder.mkdir()
    sizes = {"roadster, red.jpg": (800, 1200), "b.JPG": (1280, 1918), "c.jpeg": (901, 1333)}
    for seed, (name, size) in enumerate(sizes.items()):
        (folder / name).write_bytes(draw_pair(seed, size)[0])
    result = predict(run_job, finished, folder, tmp_path / "out")
    assert result["images"] == 3
    rows = rows_of(tmp_path / "out/submission.csv")
    assert list(rows) == sorted(sizes)
    for name, text in rows.items():
        rle.decode(text, *sizes[name])


def test_check_names_the_faults(finished: Path, data: Path, run_job: Run, tmp_path: Path) -> None:
    good = run_job("check", finished / "submission.csv", "--data", data)
    assert good.stderr == "16 rows: Kaggle would accept it\n"
    expected = {"job": "check", "rows": 16, "ok": True, "faults": [], "counts": {}, "total": 0}
    assert result_of(good) == expected
    lines = (finished / "submission.csv").read_text().splitlines()
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join([*lines[:3], lines[2].split(",")[0] + ",5", *lines[4:]]) + "\n")
    done = run_job("check", bad, "--data", data)
    assert done.returncode == 1
    found = json.loads(done.stdout.splitlines()[-1])
    assert {fault["fault"] for fault in found["faults"]} == {"doubled", "odd-count", "missing"}
    assert not found["ok"]


@pytest.mark.slow
def test_the_best_recipe_trains_scores_and_predicts(
    data: Path, run_job: Run, tmp_path: Path
) -> None:
    """A small network with the recipe's augmentation and test-time flip, through every job."""
    out = tmp_path / "best"
    flags = ("--data", data, "--out", out, "--recipe", "best", "--base", 2, "--limit", 24)
    cars = ("--holdout-cars", 1, "--val-cars", 1)
    trained = result_of(run_job("train", *flags, *cars, "--epochs", 1))
    assert trained["images"] == 8  # a car of eight views, a batch
    manifest = json.loads((out / "model/manifest.json").read_text())
    assert manifest["network"] == {"kind": "unet", "base": 2, "norm": "batch", "fold": 4}
    assert manifest["preprocessing"]["downscale"] == 1
    assert manifest["preprocessing"]["mirror"] is True
    score = result_of(run_job("evaluate", "--data", data, "--out", out))
    assert 0 < score["dice"] < 1
    predicted = result_of(run_job("predict", "--data", data, "--out", out))
    assert predicted["images"] == 16
    network, read = checkpoint.load_model(str(out / "model"))
    ask = Predictor(network, torch.device("cpu"), read.tta_flip)
    name, text = next(iter(rows_of(out / "submission.csv").items()))
    gray = images.load_gray((data / "test" / name).read_bytes(), 1)
    mine = images.enlarge(ask.soft_masks(gray[None])[0].numpy(), 1280, 1918)
    assert (mine != rle.decode(text, 1280, 1918)).sum() <= 50, "rounding of batches alone"


@pytest.mark.slow
def test_fine_tuning_as_a_command_starts_where_the_model_is(
    finished: Path, data: Path, run_job: Run, tmp_path: Path
) -> None:
    split = SMALL[4:]  # without --downscale and --base, which are the model's
    common = ("--data", data, "--out", tmp_path / "out", "--init-from", "model")
    done = run_job("train", *common, "--base", 8, *split, cwd=finished)
    assert done.returncode == 2
    assert "--base 8: the model of --init-from has 4" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    tuned = result_of(run_job("train", *common, "--epochs", 1, *split, cwd=finished))
    before = checkpoint.load_history(str(finished / "model"))
    old = best_epoch(before)
    (new,) = checkpoint.load_history(str(tmp_path / "out/model"))
    assert tuned["val_dice"] == new["val_dice"]
    assert abs(new["val_dice"] - old["val_dice"]) < 0.1 < abs(before[0]["val_dice"] - 1)
    assert new["loss"] < before[0]["loss"]
