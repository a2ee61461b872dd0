"""The review job as a command: what it prints, and in which order a person can use it."""

import os
import shlex
from pathlib import Path

import numpy as np
from support.commands import Run, result_of
from support.reviews import predict_masks, write_prediction

from carvana_ray import config, images
from carvana_ray.config import cli


def test_the_job_writes_the_folder_without_ray(tmp_path: Path, run_job: Run) -> None:
    names = ["a.jpg", "ä ö.jpg", "c'd.jpg"]
    masks = write_prediction(tmp_path, names, model="starter")
    out = tmp_path / "out"
    done = run_job("review", out)
    result = result_of(done)
    assert result["job"] == "review"
    assert (result["images"], result["kept"]) == (3, 0)
    lines = done.stderr.splitlines()
    assert "ray" not in done.stderr.lower().replace("carvana-ray", "").replace("carvana_ray", "")
    assert lines[-4:-1] == [
        "review: 3 masks to check",
        f"edit: {out}/review/train_masks",
        f"how: {out}/review/README.txt",
    ]
    words = shlex.split(lines[-1].split("carvana-ray ", 1)[1])
    flags = cli.parse(config.PredictFlags, words[0], words[1:])
    assert flags.corrections == f"{out}/review"
    for name, mask in masks.items():
        path = out / "review" / "train_masks" / f"{name.rsplit('.', 1)[0]}_mask.png"
        assert np.array_equal(images.load_mask(path.read_bytes()), mask)


def test_errors_are_one_line_that_names_the_remedy(tmp_path: Path, run_job: Run) -> None:
    masks = write_prediction(tmp_path, ["a.jpg", "b.jpg"])
    out, photos = tmp_path / "out", tmp_path / "photos"

    def refusal(*words: object) -> str:
        done = run_job("review", *words)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line

    assert f"{tmp_path}/none: no submission.csv or" in refusal(tmp_path / "none")
    assert "--out is missing" in refusal()
    submission = out / "submission.csv"
    text = submission.read_text()
    predict_masks(out, photos, {name: ~mask for name, mask in masks.items()})
    submission.write_text(text)
    assert f"review: error: {submission}: the mask of a.jpg has" in refusal(out)
    (out / "review.csv").unlink()
    assert "review.csv: no such file; predict writes it" in refusal(out)
    os.unlink(out / "report" / "predict.json")
    assert "report/predict.json does not name the folder of images" in refusal(out)
