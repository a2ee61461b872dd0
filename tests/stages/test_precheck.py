"""Input that is not there is named before torch and Ray are imported, as the stage names it."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from carvana_ray import config
from carvana_ray.checkpoints.manifest import FORMAT, MANIFEST
from carvana_ray.config.commands import COMMANDS
from carvana_ray.data.corrections import load_corrections
from carvana_ray.errors import InputError
from carvana_ray.stages.precheck import precheck

SLOW_IMPORTS = "ray", "torch", "pyarrow", "boto3"
RUN = f"""
import sys
from carvana_ray.stages.command_line import main
code = main(sys.argv[1:])
assert not set({SLOW_IMPORTS}) & set(sys.modules)
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image, a model, a damaged model and a folder without images."""
    for name in ("train", "train_masks", "model", "damaged", "empty"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg")
    Image.new("RGB", (3, 2)).save(tmp_path / "train/a.jpg")
    (tmp_path / "model" / MANIFEST).write_text(json.dumps({"format": FORMAT}))
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    (tmp_path / "a.txt").write_text("no image")
    return tmp_path


CASES: list[tuple[str, dict[str, Any]]] = [
    ("train", {}),
    ("train", {"data": "none"}),
    ("train", {"data": "empty"}),
    ("train", {"data": "DATA", "init_from": "none"}),
    ("train", {"data": "DATA", "init_from": "damaged"}),
    ("evaluate", {}),
    ("evaluate", {"data": "DATA"}),
    ("evaluate", {"data": "DATA", "model": "damaged"}),
    ("predict", {"data": "none", "model": "none"}),
    ("predict", {"data": "DATA"}),
    ("predict", {"data": "DATA", "model": "damaged"}),
    ("pipeline", {"data": "none"}),
    ("pipeline", {"init_from": "none"}),
    ("cutout", {"data": "none", "submission": "none.csv"}),
    ("cutout", {"data": "empty", "submission": "none.csv"}),
    ("cutout", {"data": "DATA", "submission": "none.csv"}),
    ("cutout", {"data": "DATA", "model": "none"}),
    ("cutout", {"pictures": ("a.jpg", "b.jpg")}),
    ("cutout", {"pictures": ("none/b.jpg",)}),
    ("cutout", {"pictures": ("empty",)}),
    ("cutout", {"data": "DATA", "background": "none.jpg"}),
    ("cutout", {"data": "DATA", "background": "a.txt"}),
    ("cutout", {"data": "DATA", "background": "whyte"}),
    ("export", {"model": "none"}),
    ("export", {"model": "damaged"}),
    ("train", {"data": "gs://bucket/folder"}),
]


def flags_of(name: str, values: dict[str, Any], folder: Path) -> config.LogFlags:
    """Return the flags of a command. Its paths are below the folder, which is `DATA`."""

    def place(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(place(item) for item in value)
        return value if "://" in value else str(folder / value.replace("DATA", ""))

    paths = {name: place(value) for name, value in values.items() if value != "whyte"}
    out = {} if name == "export" else {"out": str(folder / "out")}
    return COMMANDS[name].flags(**{**out, **values, **paths})


@pytest.mark.parametrize(("name", "values"), CASES, ids=[f"{n}-{v}" for n, v in CASES])
def test_the_message_is_that_of_the_stage(
    name: str, values: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    flags = flags_of(name, values, folder)
    with pytest.raises(InputError) as early:
        precheck(name, flags)
    stage = import_module(f"carvana_ray.stages.{COMMANDS[name].stage}")
    with pytest.raises(InputError) as late:
        (stage.run if name == "export" else stage.check)(flags)
    assert str(early.value) == str(late.value)


def test_input_that_is_there_passes(folder: Path) -> None:
    values = {"model": "model", "data": "DATA"}
    for name in ("evaluate", "predict", "cutout", "export"):
        precheck(name, flags_of(name, values, folder))
    precheck("train", flags_of("train", {"data": "DATA", "init_from": "model"}, folder))
    pictures = flags_of("cutout", {"model": "model", "pictures": ("a.jpg", "")}, folder)
    precheck("cutout", pictures)
    precheck("pipeline", flags_of("pipeline", {"data": "DATA"}, folder))
    precheck("pipeline", flags_of("pipeline", {}, folder))


def test_a_job_that_joins_a_cluster_is_checked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    precheck("predict", config.PredictFlags(data="/none", model="/none"))


@pytest.mark.parametrize(
    "argv",
    [
        ["predict", "--data", "/none", "--model", "/none"],
        ["train", "--data", "/none"],
        ["evaluate", "--data", "/none", "--model", "/none"],
        ["pipeline", "--data", "/none"],
        ["cutout", "/none/a.jpg"],
        ["cutout", "--data", "/none"],
        ["export", "/none"],
        ["check", "/none.csv"],
        ["predict", "--data", "s3://bucket/none", "--model", "/none"],
    ],
    ids=" ".join,
)
def test_nothing_slow_is_imported_before_the_error(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{argv[0]}: error: ")


@pytest.mark.parametrize("name", ["predict", "cutout", "train", "pipeline"])
def test_corrections_that_are_not_there_are_named_as_the_stage_names_them(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (folder / "train_masks/a_mask.png").write_bytes(b"")
    model = {"model": "model"} if name in ("predict", "cutout") else {}
    for uri in ("none", "empty"):
        flags = flags_of(name, {"data": "DATA", **model, "corrections": uri}, folder)
        with pytest.raises(InputError) as early:
            precheck(name, flags)
        with pytest.raises(InputError) as late:
            load_corrections(str(folder / uri), ["a.jpg"])
        assert str(early.value) == str(late.value)
        assert str(early.value).startswith(f"--corrections {folder / uri}: no ")
    precheck(name, flags_of(name, {"data": "DATA", **model, "corrections": "DATA"}, folder))


def test_nothing_slow_is_imported_before_the_error_about_corrections(folder: Path) -> None:
    flags = ["--model", "starter", "--corrections", "/none", "--out", str(folder / "out")]
    test_nothing_slow_is_imported_before_the_error(["predict", "--data", str(folder), *flags])
