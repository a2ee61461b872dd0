"""The cut-out job gives the masks of prediction, resumes, and never mixes settings."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.commands import REPOSITORY, Run, result_of
from support.pairs import draw_pair
from support.s3_buckets import download, upload
from support.s3_servers import Server
from support.survival import KILLER, draw, wait_for
from support.watched import SIZE, Opened, make_model

from carvana_ray import config, rle
from carvana_ray.cutouts import index
from carvana_ray.errors import BadImagesError, IncompleteError, InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.cutout import publish
from carvana_ray.stages.cutout import stage as cutout
from carvana_ray.stages.predict import stage as predict

pytestmark = pytest.mark.ray

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)  # as the fixture has it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an untrained network; its masks are all different."""
    folder = tmp_path_factory.mktemp("cutout") / "model"
    make_model(folder, [draw_pair(seed, SIZE)[0] for seed in range(20)])
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images; the last three have other sizes and formats."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    draw(folder, 0, 17)
    for number, (name, size) in enumerate({"x, y.JPEG": (121, 77), "z.b.jpg": (333, 251)}.items()):
        (folder / name).write_bytes(draw_pair(number, size)[0])
    Image.effect_noise((90, 61), 80).convert("P").save(folder / "gray.png")
    return folder


@pytest.fixture(scope="module")
def masks(photos: Path, model: Path, ray_session: None, tmp_path_factory: Any) -> dict[str, Any]:
    """The masks that prediction writes for these images by name, and the path of the submission."""
    out = tmp_path_factory.mktemp("predicted")
    flags = config.PredictFlags(data=str(photos), model=str(model), out=str(out))
    predict.run(flags, HERE)
    with (out / "submission.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    masks: dict[str, Any] = {"submission": out / "submission.csv"}
    for name, text in rows.items():
        width, height = Image.open(photos / name).size
        masks[name] = rle.decode(text, height, width)
    return masks


def cut(photos: Path, out: Path, model: Path | None = None, **flags: Any) -> dict[str, Any]:
    """Cut out in the Ray session of these tests."""
    values = {"data": str(photos), "out": str(out), "model": str(model or ""), **flags}
    return cutout.run(config.CutoutFlags(**values), HERE)


def files_in(out: Path) -> dict[str, tuple[int, int]]:
    files = out.glob("cutouts/*")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def names_of(photos: Path, suffix: str = ".png") -> set[str]:
    return {path.stem + suffix for path in photos.iterdir()}


@pytest.mark.parametrize(
    ("flags", "suffix"),
    [
        ({}, ".png"),
        ({"edge": "hard", "format": "webp"}, ".webp"),
        ({"mask_only": True}, ".png"),
        ({"submission": True}, ".png"),
    ],
)
def test_cutouts_have_the_masks_of_prediction(
    photos: Path, model: Path, masks: dict[str, Any], tmp_path: Path, flags: dict, suffix: str
) -> None:
    by_rows = {"submission": str(masks["submission"])} if "submission" in flags else {}
    result = cut(photos, tmp_path, None if by_rows else model, **{**flags, **by_rows})
    assert result["images"] == result["written"] == 20
    assert (result["resumed"], result["bad"]) == (0, 0)
    assert result["cutouts"] == str(tmp_path / "cutouts")
    assert set(files_in(tmp_path)) == names_of(photos, suffix) | {"_cutouts.json"}
    for path in photos.iterdir():
        image = Image.open(tmp_path / "cutouts" / (path.stem + suffix))
        assert image.size == Image.open(path).size
        if "mask_only" in flags:
            assert image.mode == "1"
            assert np.array_equal(np.asarray(image), masks[path.name])
            continue
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        assert np.array_equal(alpha >= 128, masks[path.name])
        assert (len(np.unique(alpha)) > 2) == (flags == {})


def test_existing_cutouts_are_not_repeated_and_their_images_not_read(
    model: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sheet and page, which read up to 48 images and cut-outs, are left out here."""
    monkeypatch.setattr(publish, "show_folder", lambda *_: {})
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = draw(photos, 0, 20)
    assert cut(photos, out, model, limit=18)["written"] == 18
    before = files_in(out)
    (out / "cutouts/car_00003.png").unlink()
    (photos / names[5]).write_bytes(draw_pair(99, SIZE)[0])
    opened = Opened(photos)
    result = cut(photos, out, model)
    to_read = {names[0], names[3], names[5], names[18], names[19]}  # the first to check access
    assert opened.names() - {""} == to_read  # "" is the folder
    assert (result["written"], result["resumed"]) == (4, 16)
    after = files_in(out)
    same = set(before) - {"car_00003.png", "car_00005.png", "_cutouts.json"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    opened = Opened(photos)
    result = cut(photos, out, model)
    assert opened.names() - {""} == {names[0]}
    assert (result["written"], result["resumed"]) == (0, 20)
    assert files_in(out) == after


def test_other_settings_and_another_model_are_refused(
    photos: Path, model: Path, masks: dict[str, Any], tmp_path: Path
) -> None:
    submission = str(masks["submission"])
    cut(photos, tmp_path, submission=submission, limit=2)
    before = files_in(tmp_path)
    for flags, said in (
        ({"submission": submission, "background": "red"}, "background: was transparent, is now"),
        ({"model": model}, "(another model, or masks of a submission); use another folder"),
        ({"submission": submission, "format": "webp"}, "format: was png, is now webp"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            cut(photos, tmp_path, **flags)  # type: ignore[arg-type]
    assert files_in(tmp_path) == before
    assert cut(photos, tmp_path, submission=submission, limit=3)["written"] == 1


def test_an_image_whose_row_changed_is_cut_out_again(
    photos: Path, masks: dict[str, Any], tmp_path: Path
) -> None:
    rows = masks["submission"].read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    flags = {"submission": str(tmp_path / "a.csv"), "mask_only": True}
    cut(photos, tmp_path, **flags)
    name = rows[4].split(",")[0]
    (tmp_path / "a.csv").write_text("\n".join([*rows[:4], f"{name},7 2", *rows[5:]]) + "\n")
    assert cut(photos, tmp_path, **flags)["written"] == 1
    assert np.asarray(Image.open(tmp_path / "cutouts" / f"{Path(name).stem}.png")).sum() == 2


def test_bad_images_are_named_and_all_others_cut_out(
    model: Path, ray_session: None, tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = draw(photos, 0, 18)
    good = (photos / names[4]).read_bytes()
    (photos / names[4]).write_bytes(good[: len(good) // 2])
    with pytest.raises(
        BadImagesError, match=rf"{names[4]} \(truncated.*All others are cut out"
    ) as end:
        cut(photos, out, model)
    assert (end.value.result["written"], end.value.result["bad"]) == (17, 1)
    quarantine = out / "cutouts/quarantine.csv"
    assert quarantine.read_text().splitlines()[1].startswith(f"{names[4]},")
    assert len(files_in(out)) == 19
    again = cut(photos, out, model, on_bad_picture="skip")
    assert (again["written"], again["resumed"], again["bad"]) == (0, 17, 1)
    (photos / names[4]).write_bytes(good)
    repaired = cut(photos, out, model)
    assert (repaired["written"], repaired["resumed"], repaired["bad"]) == (1, 17, 0)
    assert not quarantine.exists()


def test_an_unreachable_image_stays_pending(model: Path, ray_session: None, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = draw(photos, 0, 20)
    broken = photos / names[17]
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # a read of it fails: input/output error
    with pytest.raises(IncompleteError, match=rf"{names[17]}: unreachable.*run again") as error:
        cut(photos, out, model, on_bad_picture="skip")
    assert "\n" not in str(error.value)
    assert len(files_in(out)) == 19 + 1, "all others, and the index"
    broken.unlink()
    draw(photos, 17, 18)
    assert cut(photos, out, model)["written"] == 1


def test_many_unreachable_images_do_not_hold_back_the_others(
    photos: Path, ray_session: None, tmp_path: Path
) -> None:
    """They come first in the list, and are more than the blocks that may fail in a row have."""
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(200):
        (folder / f"a{number:03d}.png").symlink_to("/proc/self/mem")  # a read of it fails
    for number in range(25):
        (folder / f"b{number:03d}.png").write_bytes((photos / "gray.png").read_bytes())
    rows = [f"{path.name},7 2\n" for path in folder.iterdir()]
    (tmp_path / "rows.csv").write_text("".join(["img,rle_mask\n", *sorted(rows)]))
    flags = {"submission": str(tmp_path / "rows.csv"), "mask_only": True}
    with pytest.raises(IncompleteError, match=r"^200 cut-outs .*photos/a\d+\.png"):
        cut(folder, out, **flags)
    assert set(files_in(out)) == {f"b{number:03d}.png" for number in range(25)} | {index.FILE}


def test_a_cutout_that_cannot_be_written_is_named(
    photos: Path, masks: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "cutouts/car_00000.png").mkdir(parents=True)
    with pytest.raises(IncompleteError, match=r"car_00000\.png"):
        cut(photos, tmp_path, submission=str(masks["submission"]))
    assert len(files_in(tmp_path)) == 21


@pytest.mark.slow
def test_the_command_takes_single_images_and_folders(
    photos: Path, model: Path, run_job: Run, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one/car.jpg").write_bytes((photos / "z.b.jpg").read_bytes())
    (tmp_path / "two/gray.png").write_bytes((photos / "gray.png").read_bytes())
    common = ("--model", model, "--out", tmp_path / "out", "--background", "#0080ff")
    done = run_job("cutout", "one/car.jpg", "two", *common, cwd=tmp_path)
    result = result_of(done)
    keys = ["job", "images", "written", "resumed", "bad", "skipped", "images_per_second", "seconds"]
    assert list(result) == [*keys, "cutouts", "sheet", "report"]
    assert (result["job"], result["images"], result["written"]) == ("cutout", 2, 2)
    for name, size in {"car.png": (251, 333), "gray.png": (90, 61)}.items():
        image = Image.open(tmp_path / "out/cutouts" / name)
        assert (image.mode, image.size) == ("RGB", size)
    wrong = run_job("cutout", "one/bike.jpg", *common, cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1].endswith("one/bike.jpg: no such image")


@pytest.mark.slow
@pytest.mark.parametrize("count", [400, 128])  # on Ray and without
def test_a_killed_run_resumes(count: int, model: Path, tmp_path: Path) -> None:
    many, out = tmp_path / "many", tmp_path / "out"
    draw(many, 0, count)
    flags = ("--data", many, "--model", model, "--out", out)
    command = [sys.executable, str(REPOSITORY / "jobs/cutout.py"), *map(str, flags)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def whole() -> list[Path]:
        return sorted(out.glob("cutouts/*.png"))

    job = subprocess.Popen(command, **quiet)
    wait_for("some cut-outs", lambda: len(whole()) >= 40, job)
    os.kill(job.pid, signal.SIGKILL)
    job.wait(60)
    before = files_in(out)
    finished = {name for name in before if name.endswith(".png")}
    assert 40 <= len(finished) < count
    for path in whole():
        Image.open(path).load()  # every file is complete
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    result = result_of(done)
    assert result["resumed"] >= len(finished), "tasks of the killed run may have finished"
    assert result["written"] + result["resumed"] == count
    after = files_in(out)
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert len(whole()) == count
    assert len([name for name in after if name.startswith(".")]) <= 4, (
        "temporary files of the killed run are removed later"
    )


@pytest.fixture
def killed_by_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images and masks that contain KILL kill the process that decodes them."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["none", "catalogue"])
@pytest.mark.parametrize("ray", ["auto", "always"])
def test_an_image_that_crashes_is_named_and_all_others_cut_out(
    ray: str,
    frame: str,
    model: Path,
    run_job: Run,
    tmp_path: Path,
    killed_by_images: None,
) -> None:
    names = draw(tmp_path / "photos", 0, 40)
    (tmp_path / "photos" / names[9]).write_bytes(b"KILL")
    flags = ("--data", tmp_path / "photos", "--model", model, "--out", tmp_path / "out")
    done = run_job("cutout", *flags, "--ray", ray, "--frame", frame)
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["bad"], result["written"]) == (1, 39)
    _, row = (tmp_path / "out/cutouts/quarantine.csv").read_text().splitlines()
    assert row.startswith(f"{names[9]},crash")


@pytest.mark.slow
def test_cutouts_in_s3_equal_those_on_disk(
    photos: Path,
    model: Path,
    s3: Server,
    bucket: Callable[[Server], str],
    run_job: Run,
    tmp_path: Path,
    ray_session: None,
) -> None:
    home = bucket(s3)
    upload(s3, photos, f"{home}/photos")
    upload(s3, model, f"{home}/model")
    flags = ("--data", f"{home}/photos", "--model", f"{home}/model", "--out", f"{home}/out")
    result = result_of(run_job("cutout", *flags))
    assert (result["written"], result["cutouts"]) == (20, f"{home}/out/cutouts")
    in_s3 = download(s3, f"{home}/out/cutouts")
    cut(photos, tmp_path, model)
    on_disk = {path.name: path.read_bytes() for path in tmp_path.glob("cutouts/*.png")}
    assert {name: in_s3[name] for name in on_disk} == on_disk
    assert set(in_s3) == {*on_disk, "_cutouts.json"}
    s3.client().delete_object(Bucket=home.removeprefix("s3://"), Key="out/cutouts/z.b.png")
    again = result_of(run_job("cutout", f"{home}/photos/z.b.jpg", f"{home}/photos", *flags[2:]))
    assert (again["written"], again["resumed"]) == (1, 19)
    assert download(s3, f"{home}/out/cutouts") == in_s3


@pytest.mark.slow
@pytest.mark.parametrize("job", ["predict", "cutout"])
@pytest.mark.parametrize("ray", ["auto", "always"])
def test_a_corrected_mask_that_crashes_is_named_and_all_other_images_done(
    ray: str,
    job: str,
    model: Path,
    run_job: Run,
    tmp_path: Path,
    killed_by_images: None,
) -> None:
    names = draw(tmp_path / "photos", 0, 40)
    text = PngInfo()
    text.add_text("KILL", "as a fault in a decoder of this chunk would")
    (tmp_path / "fixed").mkdir()
    Image.new("1", SIZE[::-1]).save(tmp_path / "fixed/car_00009_mask.png", pnginfo=text)
    Image.new("1", SIZE[::-1]).save(tmp_path / "fixed/car_00011_mask.png")
    flags = ["--data", tmp_path / "photos", "--model", model, "--out", tmp_path / "out"]
    done = run_job(job, *flags, "--ray", ray, "--corrections", tmp_path / "fixed")
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["bad"], result["corrected"], result["images"]) == (1, 1, 40)
    (path,) = (tmp_path / "out").rglob("quarantine.csv")
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert row["img"] == names[9]
    assert row["reason"].startswith("crash: ")
    assert f"(the image, or its correction {tmp_path}/fixed/car_00009_mask.png)" in row["reason"]
