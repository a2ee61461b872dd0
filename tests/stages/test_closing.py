"""The last words of each command: they name the results, and their commands can be pasted."""

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from carvana_ray import config
from carvana_ray.config import cli
from carvana_ray.config.commands import COMMANDS
from carvana_ray.stages.closing import Closing

HOME = "/home/me"
TRAIN = {"model": f"{HOME}/runs/first/model", "val_dice": 0.9914}
EVALUATE = {"images": 64, "dice": 0.9436, "report": f"{HOME}/runs/first/report.html"}
PREDICT = {"images": 64, "submission": f"{HOME}/runs/first/submission.csv", "unusual": 3}
PREDICT |= {"report": f"{HOME}/runs/first/report.html"}
LOOK = "--frame catalogue --shadow contact --background white"
CUTOUT = {"written": 3, "resumed": 1, "bad": 1, "cutouts": f"{HOME}/runs/my photos/cutouts"}
PIPELINE = {"dice": 0.37, "submission": "/out/s.csv", "report": "/out/report.html"}
REVIEW = {"folder": f"{HOME}/runs/first/review", "images": 3, "listed": 4, "kept": 1}
REVIEW |= {"earlier": 2}
REVIEW |= {"next": "predict --data 'my data' --out runs/first --corrections runs/first/review"}
EXPORT = {"onnx": "/m/model.onnx", "bytes": 2_100_000, "images": 4, "pixels_differ": 0}
FIRST = {"data": "my data", "out": "runs/first"}
PHOTOS = {"model": "m", "out": "runs/my photos"}

# Command, its flags, its result, and words that its lines have.
CASES: list[tuple[str, Any, dict[str, Any], list[str]]] = [
    (
        "sample",
        config.SampleFlags(out="runs/sample"),
        {"images": 448, "data": f"{HOME}/runs/sample"},
        ["448 images of 28 cars in runs/sample", "train --data runs/sample --out runs/sample-run"],
    ),
    (
        "train",
        config.TrainFlags(**FIRST),
        TRAIN,
        ["validation: Good", "0.9914", "model: runs/first/model", "evaluate --data 'my data'"],
    ),
    (
        "train",
        config.TrainFlags(**FIRST, holdout_cars="0"),
        {**TRAIN, "val_dice": None},
        ["no validation cars", "cutout --data 'my data/train' --model runs/first/model"],
    ),
    (
        "evaluate",
        config.EvaluateFlags(**FIRST),
        EVALUATE,
        ["64 images: Poor masks: mean Dice 0.9436", "report: runs/first/report.html", "predict"],
    ),
    (
        "evaluate",
        config.EvaluateFlags(data="own", model="old model", out="runs/cmp"),
        EVALUATE,
        ["cutout --data own/train --model 'old model' --out runs/cmp --limit 16"],
    ),
    (
        "predict",
        config.PredictFlags(**FIRST),
        PREDICT,
        [
            "64 masks in runs/first/submission.csv, checked as Kaggle",
            "3 of 64 masks look unusual",
            "To correct them: carvana-ray review runs/first\n",
        ],
    ),
    (
        "review",
        config.ReviewFlags(out="runs/first"),
        REVIEW,
        [
            "3 masks to check, 1 of them corrected before; 2 of earlier lists stay in the folder",
            "edit: runs/first/review/train_masks",
            "how: runs/first/review/README.txt",
            "predict --data 'my data' --out runs/first --corrections runs/first/review",
        ],
    ),
    (
        "review",
        config.ReviewFlags(out="runs/first"),
        {**REVIEW, "images": 0, "listed": 0},
        ["no mask is unusual"],
    ),
    (
        "cutout",
        config.CutoutFlags(pictures=("a b.jpg", "c.jpg"), **PHOTOS),
        {**CUTOUT, "sheet": f"{HOME}/runs/my photos/sheet.jpg"},
        [
            "4 cut-outs in 'runs/my photos/cutouts', 1 of them made before",
            "sheet: 'runs/my photos/sheet.jpg'",
            f"cutout 'a b.jpg' c.jpg --model m {LOOK} --out 'runs/my photos-white'",
        ],
    ),
    (
        "cutout",
        config.CutoutFlags(data="p", out="o"),
        CUTOUT,
        [f"cutout --data p --model starter {LOOK} --out o-white"],
    ),
    (
        "cutout",
        config.CutoutFlags(data="p", out="o", corrections="fixed", cars_by="CAR_VIEW"),
        CUTOUT,
        [f"--model starter --corrections fixed --cars-by CAR_VIEW {LOOK} --out o-white"],
    ),
    (
        "cutout",
        config.CutoutFlags(data="p", submission="s.csv", out="o", background="white"),
        {**CUTOUT, "written": 1, "resumed": 0},
        ["1 cut-out in"],
    ),
    (
        "pipeline",
        config.PipelineFlags(out="runs/demo"),
        PIPELINE,
        ["Unusable", "0.37", "open: /out/report.html", "cutout --data runs/demo/sample"],
    ),
    (
        "pipeline",
        config.PipelineFlags(**FIRST),
        {**PIPELINE, "submission": None},
        ["held-out cars: Unusable"],
    ),
    (
        "export",
        config.ExportFlags(model="/m"),
        EXPORT,
        ["/m/model.onnx, 2 MB", "4 images differ from the model's in 0 pixels"],
    ),
]


def exists(uri: str) -> bool:
    return "/my data/" in uri


def lines_of(
    job: str, flags: Any, result: dict[str, Any], exists: Callable[[str], bool] = exists
) -> list[str]:
    return Closing("carvana-ray", HOME, exists).lines(job, flags, result)


@pytest.mark.parametrize(("job", "flags", "result", "words"), CASES, ids=[c[0] for c in CASES])
def test_a_command_ends_with_what_came_out_and_what_to_do_next(
    job: str, flags: Any, result: dict[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getcwd", lambda: HOME)
    lines = lines_of(job, flags, result)
    assert 1 <= len(lines) <= 4
    text = "\n".join(lines)
    for one in words:
        assert one in text
    for line in lines:
        if line.startswith("next: "):
            program, command, *rest = shlex.split(line.removeprefix("next: "))
            assert program == "carvana-ray"
            cli.parse(COMMANDS[command].flags, command, rest)  # exits if it is not valid


@pytest.mark.parametrize(
    "look",
    [{"frame": "car"}, {"background": "white"}, {"mask_only": True}],
    ids=str,
)
def test_after_finished_pictures_no_other_look_is_proposed(look: dict[str, Any]) -> None:
    flags = config.CutoutFlags(data="p", out="o", **look)
    assert not any(line.startswith("next: ") for line in lines_of("cutout", flags, CUTOUT))


def test_without_a_submission_the_message_on_bad_images_says_all() -> None:
    assert lines_of("predict", config.PredictFlags(**FIRST), {"submission": None}) == []


def test_a_command_of_another_name_has_no_closing_lines() -> None:
    assert lines_of("check", config.CheckFlags(submission="s.csv"), {"rows": 3}) == []
