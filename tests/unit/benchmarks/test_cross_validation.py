"""Folds of cars, and the script as a whole on a few small drawn cars."""

import io
import itertools
import json
from pathlib import Path

import cross_validation
import in_memory
import numpy as np
import pytest
from candidates import Candidate
from PIL import Image
from support.pairs import draw_pair

from carvana_ray.data.split import split_cars

CARS = [f"{number:012x}" for number in range(96)]
SIZE = 96, 128


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight small cars of two views."""
    monkeypatch.setattr(in_memory, "SIZE", SIZE)
    monkeypatch.setattr(cross_validation, "SIZE", SIZE)
    monkeypatch.setattr(cross_validation.machine, "describe", dict)  # imports Ray
    for name in ("train", "train_masks"):
        (tmp_path / name).mkdir()
    for car, view in itertools.product(CARS[:8], (1, 2)):
        jpeg, gif = draw_pair(int(car, 16) * 2 + view, SIZE)
        (tmp_path / f"train/{car}_{view:02d}.jpg").write_bytes(jpeg)
        (tmp_path / f"train_masks/{car}_{view:02d}_mask.gif").write_bytes(gif)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[dict], list[str]]:
    """Return the JSON objects and the other lines that the script prints."""
    cross_validation.main([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return found, [line for line in lines if not line.startswith("{")]


def test_folds_divide_the_cars_that_are_not_held_out() -> None:
    folds = cross_validation.fold_cars(CARS)
    held = set(split_cars(CARS, "16", "0", 0)[2])
    assert [len(fold) for fold in folds] == [20] * 4
    assert sorted(itertools.chain(*folds)) == sorted(set(CARS) - held)
    rest = sorted(set(CARS) - held)
    assert cross_validation.fold_cars(rest, "0") == folds
    assert cross_validation.fold_cars(CARS[::-1]) == folds


def test_candidates_are_trained_scored_compared_and_joined(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "starter:base=4,downscale=1,batch_size=2,learning_rate=2e-2,affine_augment=False"
    flags = ["--data", folder, "--holdout-cars", "2", "--epochs", "6", "--folds", "0", "2"]
    flags += ["--candidates", small, f"{small},epochs=1"]
    found, lines = run(capsys, *flags, "--sheet", tmp_path / "worst.jpg")
    rows, last = found[:-1], found[-1]
    assert [(row["epochs"], row["fold"]) for row in rows] == [(6, 0), (1, 0), (6, 2), (1, 2)]
    folds = cross_validation.fold_cars(CARS[:8], "2")
    assert [sorted(row["by_car"]) for row in rows[::2]] == [folds[0], folds[2]]
    assert [row["images_seen"] for row in rows[:2]] == [8 * 6, 8]
    for row in rows:
        assert row["dice"] == pytest.approx(np.mean(list(row["by_car"].values())))
        assert row["dice"] == pytest.approx(np.mean(list(row["errors"]["views"].values())))
    trained, hardly = last["compared"]
    assert trained["dice"] > 0.8 > hardly["dice"]
    assert hardly["verdict"].endswith("unequal budgets")
    assert lines[2].startswith(f"| {small} | 6, 54 | 2, 1 |")
    sheet = Image.open(io.BytesIO((tmp_path / "worst.jpg").read_bytes()))
    assert sheet.width > 3 * SIZE[1]

    # The outputs of two processes that were stopped in a line.
    parts = [tmp_path / "first", tmp_path / "second"]
    for part, some in zip(parts, (rows[:3], rows[3:]), strict=True):
        part.write_text(
            "".join(f"{json.dumps(row)}\n" for row in some) + '{"candidate": "best", "ep'
        )
    ((again,), _) = run(capsys, "--join", *parts)
    assert again == last


def test_shares_divide_the_folds_and_seeds_and_keep_the_candidates_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[str, int, int]] = []

    class Noted:
        def __init__(self, *_: object) -> None:
            self.worst = {}

        def run(self, candidate: Candidate, fold: int, seed: int) -> dict:
            done.append((candidate.name, fold, seed))
            return {"candidate": candidate.name, "epochs": 1, "dice": 1.0, "train_seconds": 0}

    monkeypatch.setattr(cross_validation, "Folds", Noted)
    monkeypatch.setattr(cross_validation, "report", lambda rows, base: None)
    shares = []
    for share in ("1/2", "2/2"):
        done.clear()
        flags = ["--candidates", "default", "best", "--folds", 0, 1, 3, "--seeds", 0, 1]
        run(capsys, "--data", folder, "--holdout-cars", "2", *flags, "--share", share)
        shares.append(list(done))
    assert [run[1:] for run in shares[0]] == [(0, 0)] * 2 + [(3, 0)] * 2 + [(1, 1)] * 2
    assert [run[0] for run in shares[1]] == ["default", "best"] * 3
    assert len({*shares[0], *shares[1]}) == 2 * 3 * 2


def test_the_list_has_the_files_of_the_folds_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines = run(capsys, "--data", folder, "--holdout-cars", "2", "--list")
    held = split_cars(CARS[:8], "2", "0", 0)[2]
    assert len(lines) == 6 * 2 * 2
    assert all(Path(line).is_file() and not any(car in line for car in held) for line in lines)


def test_sheets_of_photographs_stay_out_of_the_repository(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = cross_validation.machine.REPOSITORY / "docs/worst.jpg"
    with pytest.raises(SystemExit):
        run(capsys, "--data", folder, "--candidates", "best", "--sheet", sheet)
    assert "name a file outside the repository" in capsys.readouterr().err
