"""The manifest of a model without torch: what is wrong with it, and what to do about it."""

import json
from pathlib import Path

import pytest

from carvana_ray.checkpoints.manifest import (
    FORMAT,
    HALF_FORMAT,
    MANIFEST,
    cutout_model,
    model_file,
    read_manifest,
    read_model_manifest,
    resolve_model,
)
from carvana_ray.errors import FileMissingError, InputError


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = {"format": FORMAT, "sha256": "ab", "more": [1]}
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    assert read_manifest(str(tmp_path)) == values
    assert read_model_manifest(str(tmp_path), "--model") == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ("[" * 100_000, "damaged"),
        (json.dumps({"format": HALF_FORMAT + 1}), f"format {HALF_FORMAT + 1}"),
    ],
)
def test_a_file_that_is_no_manifest_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    for read in (read_manifest, lambda folder: read_model_manifest(folder, "--model")):
        with pytest.raises(InputError, match=rf"{tmp_path}/manifest\.json: {problem}"):
            read(str(tmp_path))


@pytest.mark.parametrize(
    ("flag", "remedy"), [("--model", "train one first"), ("--init-from", "restore that folder")]
)
def test_a_folder_without_a_manifest_is_no_model(flag: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        read_manifest(str(tmp_path))
    with pytest.raises(InputError, match=f"^{flag} {tmp_path}: no model there .*{remedy}"):
        read_model_manifest(str(tmp_path), flag)


def test_starter_is_a_name_and_a_folder_of_that_name_has_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("starter") == "starter"
    assert resolve_model("./starter") == str(tmp_path / "starter")
    assert model_file("starter", MANIFEST).endswith("carvana_ray/starter/manifest.json")
    assert model_file("/m", MANIFEST) == "/m/manifest.json"


def test_a_cutout_without_a_model_takes_the_one_that_was_trained_there(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cutout_model("", str(out)) == "starter"
    assert cutout_model("runs/x/model", str(out)).endswith("/runs/x/model")
    (out / "model").mkdir(parents=True)
    assert cutout_model("", str(out)) == "starter", "an empty folder is no model"
    (out / "model" / MANIFEST).write_text("{}")
    assert cutout_model("", str(out)) == str(out / "model")
