"""The manifest of a model without torch: what is wrong with it, and what to do about it."""

import json
from pathlib import Path

import pytest

from carvana_ray.checkpoints.manifest import FORMAT, MANIFEST, read_manifest, read_model_manifest
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
        (json.dumps({"format": FORMAT + 1}), f"format {FORMAT + 1}"),
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
