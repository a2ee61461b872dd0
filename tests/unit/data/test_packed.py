"""Data that are still packed are named with the command; folders of Windows are found."""

import logging
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from support.corpus import jpeg, mask, save

from carvana_ray import config
from carvana_ray.data import catalog
from carvana_ray.errors import InputError
from carvana_ray.stages.check import run as check
from carvana_ray.training.run import plan_run


def fill(folder: Path) -> Path:
    """Write two images with masks, and two to predict."""
    for name in ("train", "train_masks", "test"):
        (folder / name).mkdir(parents=True)
    for name in "ab":
        (folder / f"train/{name}.jpg").write_bytes(jpeg())
        (folder / f"test/{name}.jpg").write_bytes(jpeg())
        (folder / f"train_masks/{name}_mask.png").write_bytes(save(mask(), "PNG"))
    return folder


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder under its name, and remove it."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)


def train_error(data: Path) -> str:
    with pytest.raises(InputError) as error:
        plan_run(config.TrainFlags(data=str(data), batch_size=1, holdout_cars="0"), 1)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.skipif(not shutil.which("unzip"), reason="unzip is missing")
@pytest.mark.parametrize("name", ["data", "my data's"])
def test_the_command_in_the_error_unpacks_the_folder(tmp_path: Path, name: str) -> None:
    data = fill(tmp_path / name)
    for part in ("train", "train_masks"):
        pack(data / part, data / f"{part}.zip")
        text = train_error(data)
        assert f"{data}/{part}: no such folder; {data}/{part}.zip is still packed" in text
        command = text.split("unpack it: ")[1]
        subprocess.run(command, shell=True, check=True, capture_output=True)
    assert len(plan_run(config.TrainFlags(data=str(data), batch_size=1, holdout_cars="0"), 1).pairs)


@pytest.mark.skipif(not shutil.which("unzip"), reason="unzip is missing")
def test_an_archive_is_no_folder(tmp_path: Path) -> None:
    data = fill(tmp_path / "carvana")
    with zipfile.ZipFile(tmp_path / "carvana.zip", "w") as file:
        for path in data.rglob("*"):
            file.write(path, path.relative_to(data))
    shutil.rmtree(data)
    text = train_error(tmp_path / "carvana.zip")
    assert text.startswith(f"--data: {tmp_path}/carvana.zip is still packed; unpack it: ")
    with pytest.raises(InputError, match="still packed"):
        catalog.load_catalog(str(tmp_path / "carvana.zip"))
    command = text.split("unpack it: ")[1].split(", and name")[0]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert len(catalog.load_catalog(str(data)).entries) == 2


def test_packed_images_to_predict_are_named(tmp_path: Path) -> None:
    data = fill(tmp_path / "data")
    pack(data / "test", data / "test.zip")
    with pytest.raises(InputError, match=r"no images .*; .*/test\.zip is still packed; unpack it"):
        catalog.load_catalog(str(data))


@pytest.mark.parametrize(
    ("name", "tool"), [("a.tar.gz", "tar -xf"), ("a.TAR", "tar -xf"), ("a.7z", "7z x")]
)
def test_other_archives_have_their_own_commands(tmp_path: Path, name: str, tool: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"unpack it: .*{tool} .*, and name {tmp_path}/a$"):
        catalog.image_dir(str(tmp_path / name))


def test_a_folder_may_be_named_as_an_archive(tmp_path: Path) -> None:
    data = fill(tmp_path / "data.zip")
    assert len(catalog.load_catalog(str(data)).entries) == 2


def test_folders_that_windows_unpacked_too_deep_are_found(tmp_path: Path) -> None:
    data = fill(tmp_path / "data")
    flags = config.TrainFlags(data=str(data), batch_size=1, holdout_cars="0")
    plain = [[file.name for file in pair] for pair in plan_run(flags, 1).pairs]
    for name in ("train", "train_masks", "test"):
        (data / name).rename(data / "moved")
        (data / name).mkdir()
        (data / "moved").rename(data / name / name)
        (data / name / "desktop.ini").touch()
    assert catalog.load_catalog(str(data)).folder == f"{data}/test/test"
    run = plan_run(flags, 1)
    assert [[file.name for file in pair] for pair in run.pairs] == plain
    assert (run.image_dir, run.mask_dir) == (
        f"{data}/train/train",
        f"{data}/train_masks/train_masks",
    )


def test_a_folder_with_images_of_its_own_stays(tmp_path: Path) -> None:
    data = fill(tmp_path / "data")
    (data / "test/test").mkdir()
    assert catalog.load_catalog(str(data)).folder == f"{data}/test"


def test_a_packed_list_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = fill(tmp_path / "data")
    (data / "sample_submission.csv.zip").touch()
    said = f"{data}/sample_submission.csv.zip is still packed; unpack it: unzip "
    with caplog.at_level(logging.WARNING):
        catalog.load_catalog(str(data))
    assert said in caplog.text
    (tmp_path / "a.csv").write_text("img,rle_mask\n")
    with pytest.raises(InputError, match=said):
        check(config.CheckFlags(submission=str(tmp_path / "a.csv"), data=str(data)))
