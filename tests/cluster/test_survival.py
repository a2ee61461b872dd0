"""The same command finishes the work after a failure, and nothing is done twice.

The failures here have a known cause; `test_chaos.py` kills at random moments.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import REPOSITORY, SMALL, Run
from support.pairs import draw_pair
from support.survival import HERE, KILLER, draw, predicted, shards_in, wait_for
from support.watched import SIZE, Opened, make_model

from carvana_ray import config
from carvana_ray.data import quarantine
from carvana_ray.errors import BadImagesError, IncompleteError, InputError
from carvana_ray.stages.ingest.read_images import ReadOptions, read_images
from carvana_ray.stages.predict import plan_run as plan
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.predict.plan_run import plan_run
from carvana_ray.stages.train import stage as train
from carvana_ray.storage.base import TEMP_PREFIX

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder. Its masks all differ and have no meaning."""
    folder = tmp_path_factory.mktemp("survival") / "model"
    make_model(folder, [draw_pair(seed, SIZE)[0] for seed in range(20)])
    return folder


@pytest.mark.parametrize("ray", ["auto", pytest.param("always", marks=pytest.mark.slow)])
def test_a_crashing_image_is_named_and_all_others_are_done(
    ray: str, model: Path, run_job: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    names = draw(tmp_path / "photos", 0, 24)
    (tmp_path / "photos" / names[9]).write_bytes(b"KILL")
    flags = ("--data", tmp_path / "photos", "--model", model, "--out", tmp_path / "out")
    done = run_job("predict", *flags, "--shard-size", 4, "--ray", ray)
    assert done.returncode == 3, done.stderr
    (quarantine,) = (tmp_path / "out").glob("predict/*/quarantine.csv")
    _, row = quarantine.read_text().splitlines()
    assert row.startswith(f"{names[9]},crash")
    assert names[9] in done.stderr.splitlines()[-1]
    assert len(shards_in(tmp_path / "out")) == 6
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["bad"], result["submission"]) == (1, None)


@pytest.mark.slow
def test_an_image_that_crashed_is_tried_again_by_the_next_run(
    model: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out, cause = tmp_path / "photos", tmp_path / "out", tmp_path / "cause"
    names = draw(photos, 0, 12)

    def die(name: str) -> None:
        if name == names[5] and cause.exists():
            os.kill(os.getpid(), signal.SIGSEGV)

    def read(batch: Any, options: ReadOptions) -> Any:
        for name, status in zip(batch["names"][0], batch["preset_status"][0], strict=True):
            if not status:
                die(name)
        return read_images(batch, options)

    monkeypatch.setattr(plan, "read_images", read)
    cause.touch()
    for shards_written in (3, 0):  # a second run tries the image alone, and loses no block
        before = shards_written_at(out)
        with pytest.raises(BadImagesError, match=rf"1 image .*{names[5]} \(crash: ") as error:
            predicted(photos, model, out, shard_size=4)
        assert error.value.result["resumed_shards"] == 3 - shards_written
        assert len(set(shards_written_at(out).items()) - set(before.items())) == shards_written
    cause.unlink()
    result = predicted(photos, model, out, shard_size=4)
    assert (result["bad"], result["resumed_shards"]) == (0, 2)


def shards_written_at(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("predict/*/shards/*.parquet")}


def test_an_unreachable_image_never_counts_as_done(
    model: Path, ray_session: None, tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = draw(photos, 0, 12)
    broken = photos / names[5]
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # a read of it fails: input/output error
    with pytest.raises(IncompleteError, match=rf"1 shard .*{names[5]} \(unreachable") as error:
        predicted(photos, model, out, on_bad_picture="empty", shard_size=4)
    assert "\n" not in str(error.value)
    assert len(shards_in(out)) == 2
    assert not (out / "submission.csv").exists()
    broken.unlink()
    draw(photos, 5, 6)
    again = predicted(photos, model, out, on_bad_picture="empty", shard_size=4)
    assert (again["bad"], again["images"]) == (0, 12)


def shown_in_report(out: Path) -> set[str]:
    """Return the names of the images in a prediction's report."""
    part = json.loads((out / "report" / "predict.json").read_text())
    figures = part["review"]["figures"] + part["shown"]
    assert len(figures) <= 24 + 8
    return {one["name"] for one in figures}


@pytest.mark.parametrize(
    ("count", "more"), [(40, 10), pytest.param(2000, 500, marks=pytest.mark.slow)]
)
def test_only_the_new_images_of_a_catalog_are_predicted(
    count: int, more: int, model: Path, ray_session: None, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    old = draw(photos, 0, count)
    predicted(photos, model, tmp_path / "grown", shard_size=50)
    before = shards_in(tmp_path / "grown")
    new = draw(photos, count, count + more)
    opened = Opened(photos)
    grown = predicted(photos, model, tmp_path / "grown", shard_size=50)
    read = opened.names() - {""}  # the folder itself, which is listed
    shown = set(old[:6]) | shown_in_report(tmp_path / "grown")  # and on the contact sheets
    assert set(new) <= read <= set(new) | shown
    assert (grown["images"], grown["resumed_shards"]) == (count + more, len(before))
    predicted(photos, model, tmp_path / "whole", shard_size=50)
    submission = (tmp_path / "grown/submission.csv").read_bytes()
    assert submission == (tmp_path / "whole/submission.csv").read_bytes()
    assert submission.count(b"\n") == count + more + 1


@pytest.mark.slow
def test_planned_images_that_were_removed_are_no_bad_images(
    model: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is killed after its plan; most of its images are removed, and one is replaced."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = draw(photos, 0, 24)
    flags = config.PredictFlags(data=str(photos), model=str(model), out=str(out), shard_size=4)
    plan_run(flags, HERE, predict.check(flags))
    kept = names[::4]
    away = {name: (photos / name) for name in names if name not in kept}
    for name, path in away.items():
        path.rename(tmp_path / name)
    draw(photos, 100, 101)
    (photos / "car_00100.jpg").replace(photos / kept[2])
    monkeypatch.setattr(quarantine, "MAX_BAD", 1)
    result = predicted(photos, model, out, shard_size=4)
    assert (result["images"], result["bad"]) == (6, 0)
    assert (out / "submission.csv").read_text().count("\n") == 7
    for name, path in away.items():
        (tmp_path / name).rename(path)
    result = predicted(photos, model, out, shard_size=4)
    assert (result["images"], result["bad"]) == (24, 0)


def test_verify_finds_changed_images_and_a_damaged_shard_is_made_again(
    model: Path, ray_session: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = draw(photos, 0, 12)
    predicted(photos, model, out, shard_size=4)
    picture, other = photos / names[0], photos / names[7]
    status, data = picture.stat(), other.read_bytes()
    picture.write_bytes(data[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    shard = sorted(out.glob("predict/*/shards/*.parquet"))[2]
    shard.write_bytes(shard.read_bytes()[:-9])
    result = predicted(photos, model, out, shard_size=4, verify=True, on_bad_picture="empty")
    assert (result["shards"], result["resumed_shards"]) == (3, 1)
    assert names[0] in caplog.text
    assert shard.name in caplog.text


@pytest.mark.slow
def test_two_drivers_at_once_give_one_submission(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    names = draw(photos, 0, 60)
    flags = ("--data", photos, "--model", model, "--out", tmp_path / "out", "--shard-size", 4)
    command = [sys.executable, str(REPOSITORY / "jobs/predict.py"), *map(str, flags)]
    pipe = subprocess.PIPE
    jobs = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for job in jobs:
        output, errors = job.communicate(timeout=200)
        assert job.returncode == 0, errors
        assert json.loads(output.splitlines()[-1])["images"] == 60
    assert len(shards_in(tmp_path / "out")) == 15
    with (tmp_path / "out/submission.csv").open() as file:
        assert [line.split(",")[0] for line in file] == ["img", *names]
    assert not list((tmp_path / "out").rglob(f"{TEMP_PREFIX}*"))


def descendants(parent: int) -> dict[int, str]:
    """Return the titles of a process's descendants by id."""
    parents, titles = {}, {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
            titles[int(number)] = Path(f"/proc/{number}/cmdline").read_bytes().decode()
        except OSError:
            continue  # it has ended since
        parents[int(number)] = int(fields[1])
    below = {parent}
    for _ in range(6):
        below |= {number for number, above in parents.items() if above in below}
    return {number: titles[number] for number in below - {parent}}


@pytest.mark.slow
def test_training_survives_crashes_and_learns_the_same(data: Path, tmp_path: Path) -> None:
    """The driver is killed, the latest checkpoint damaged, a worker killed, one after another.

    The losses of each epoch are still those of an undisturbed run.
    """
    flags = ["--data", str(data), "--epochs", "8", *map(str, SMALL)]
    command = [sys.executable, str(REPOSITORY / "jobs/train.py"), *flags, "--out"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole = subprocess.Popen([*command, str(tmp_path / "whole")], **quiet)
    out = tmp_path / "stopped"
    command.append(str(out))

    def checkpoints() -> list[Path]:
        return sorted(out.glob("checkpoints/*/epoch-*/manifest.json"))

    job = subprocess.Popen(command, **quiet)
    wait_for("two epochs", lambda: len(checkpoints()) >= 2, job)
    job.kill()
    job.wait(60)
    newest = checkpoints()[-1].parent
    reached = int(newest.name[6:])
    damaged = bytearray((newest / "state.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (newest / "state.pt").write_bytes(bytes(damaged))
    with (tmp_path / "log").open("w+") as log:
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        wait_for("an epoch", lambda: int(checkpoints()[-1].parent.name[6:]) > reached, job)
        workers = [pid for pid, title in descendants(job.pid).items() if "RayTrainWorker" in title]
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGKILL)
        output, _ = job.communicate(timeout=200)
        log.seek(0)
        said = log.read()
    assert job.returncode == 0, said
    assert f"skipped a checkpoint: {newest}/state.pt: damaged" in said
    assert f"resumes after epoch {reached - 1}" in said, "at most one epoch is lost"
    assert json.loads(output.splitlines()[-1])["epochs"] == 8
    assert whole.wait(200) == 0

    def losses(folder: Path) -> list[tuple[float, float, float]]:
        rows = json.loads((folder / "model/history.json").read_text())
        return [(row["epoch"], row["loss"], row["val_loss"]) for row in rows]

    assert [row[0] for row in losses(out)] == list(range(1, 9))
    assert losses(out) == losses(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_keeps_its_epochs(
    number: signal.Signals, data: Path, tmp_path: Path
) -> None:
    flags = ["--data", str(data), "--epochs", "40", *map(str, SMALL), "--out", str(tmp_path)]
    command = [sys.executable, str(REPOSITORY / "jobs/train.py"), *flags]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found = "checkpoints/*/epoch-*/manifest.json"
    wait_for("an epoch", lambda: list(tmp_path.glob(found)), job)
    job.send_signal(number)
    output, said = job.communicate(timeout=60)
    assert job.returncode == 75, said
    assert output == ""
    assert re.search(r"the same command continues after epoch \d+ of 40", said.splitlines()[-1])
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_bad_training_images_end_the_training_or_are_skipped(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    picture = sorted((tmp_path / "data/train").iterdir())[3]
    picture.write_bytes(picture.read_bytes()[:9000])
    mask = sorted((tmp_path / "data/train_masks").iterdir())[20]
    mask.write_bytes(b"")
    values: dict[str, Any] = {
        "data": str(tmp_path / "data"),
        "out": str(tmp_path / "out"),
        "epochs": 1,
        "downscale": 8,
        "base": 4,
        "holdout_cars": "0",
    }
    with pytest.raises(InputError, match=f"{picture.name}.*{mask.name}.*--on-bad-picture skip"):
        train.run(config.TrainFlags(**values), HERE)
    lines = (tmp_path / "out/quarantine.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0][:15] for line in lines] == [picture.stem, mask.name[:15]]
    skipped = train.run(config.TrainFlags(**values, on_bad_picture="skip"), HERE)
    assert skipped["skipped"] == 2
    named = json.loads((tmp_path / "out/model/manifest.json").read_text())["skipped"]
    assert [text.split(":")[0] for text in sorted(named)] == [picture.name, mask.name]
