"""Bad input: one clear line that names the flag or the file, before anything starts."""

import json
import shutil
from pathlib import Path

import pytest
from support.commands import Run
from support.pairs import make_data

from carvana_ray import config
from carvana_ray.data.catalog import Catalog, load_catalog
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources, allocate_workers
from carvana_ray.stages import evaluate, sample
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.train import stage as train
from carvana_ray.training.run import plan_run

MACHINE = ClusterResources(cpus=3, gpus=0, nodes=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", cars=4, test_cars=1, views=2)


def refused(match: str, kind: str, flags: config.ModelFlags) -> None:
    run = {"train": train.run, "evaluate": evaluate.run, "predict": predict.run}[kind]
    with pytest.raises(InputError, match=match) as error:
        run(flags, MACHINE)  # type: ignore[operator]
    assert "\n" not in str(error.value)


def train_flags(folder: Path, **changes: object) -> config.TrainFlags:
    values = {"data": str(folder), "out": str(folder / "out"), "batch_size": 2}
    return config.TrainFlags(**(values | changes))  # type: ignore[arg-type]


def test_training_folders_that_cannot_be_used(folder: Path) -> None:
    refused("--data is missing", "train", train_flags(folder, data=""))
    refused("no such folder", "train", train_flags(folder, data=str(folder / "none")))
    refused("--batch-size 64 is more", "train", train_flags(folder, batch_size=64))
    refused("--holdout-cars 9", "train", train_flags(folder, holdout_cars="9"))
    refused("no car to train on", "train", train_flags(folder, holdout_cars="3", val_cars="1"))
    (folder / "train_masks/000000000001_02_mask.gif").unlink()
    refused("1 of 8 .*000000000001_02.jpg", "train", train_flags(folder))
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    refused("no images", "train", train_flags(folder))


def test_a_file_of_cars_is_held_out(folder: Path) -> None:
    names = folder / "cars.txt"
    names.write_text("000000000002\n000000000000\n")
    flags = train_flags(folder, holdout_cars=str(names), val_cars="0")
    run = plan_run(flags, 1)
    assert run.cars[2] == ["000000000000", "000000000002"]
    assert {image.name[:12] for image, _ in run.pairs} == {"000000000001", "000000000003"}
    names.write_text("nobody\n")
    refused("--holdout-cars names nobody", "train", flags)


def test_the_id_of_a_run_depends_on_everything_its_model_depends_on(folder: Path) -> None:
    def name(**changes: object) -> str:
        flags = train_flags(folder, **changes)
        return plan_run(flags, 1).run_id

    assert name() == name(out="elsewhere")
    others = [name(seed=1), name(epochs=6), name(base=8), name(recipe="2017"), name(downscale=8)]
    assert len({name(), *others}) == 6
    before = name()
    image = next((folder / "train").iterdir())
    image.write_bytes(image.read_bytes() + b" ")
    assert name() != before


def test_models_that_cannot_be_used(folder: Path) -> None:
    common = {"data": str(folder), "out": str(folder / "out")}
    refused("no model there", "predict", config.PredictFlags(**common))
    refused("no model there", "evaluate", config.EvaluateFlags(**common, model=str(folder)))
    (folder / "manifest.json").write_text(json.dumps({"format": 9}))
    refused("format 9", "predict", config.PredictFlags(**common, model=str(folder)))


@pytest.mark.parametrize("job", ["train", "predict"])
def test_workers_that_do_not_fit_the_machine_are_refused(job: str) -> None:
    kind = {"train": config.TrainFlags, "predict": config.PredictFlags}[job]
    with pytest.raises(InputError, match=r"--workers 3: needs 4 CPUs .* --num-cpus 4"):
        allocate_workers(kind(workers=3), MACHINE)
    with pytest.raises(InputError, match="--device cuda: Ray finds no GPU"):
        allocate_workers(kind(device="cuda"), MACHINE)
    with pytest.raises(InputError, match=r"--workers 3: each worker needs a GPU; .* 2 GPUs"):
        allocate_workers(kind(workers=3), ClusterResources(cpus=16, gpus=2, nodes=1))


def test_training_uses_all_gpus_and_leaves_a_cpu_for_readers() -> None:
    eight = allocate_workers(config.TrainFlags(), ClusterResources(cpus=64, gpus=8, nodes=2))
    assert (eight.count, eight.use_gpu) == (8, True)
    laptop = allocate_workers(
        config.TrainFlags(workers=2), ClusterResources(cpus=9, gpus=0, nodes=1)
    )
    assert (laptop.count, laptop.cpus, laptop.use_gpu) == (2, 4, False)


def catalog(folder: Path, **changes: object) -> Catalog:
    return load_catalog(str(folder), **changes)  # type: ignore[arg-type]


def test_a_catalog_matches_its_list_or_is_refused(folder: Path) -> None:
    assert [entry.name for entry in catalog(folder).entries] == catalog(folder).order
    (folder / "test/000000000004_02.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images .*000000000004_02\.jpg; pass --partial"):
        catalog(folder)
    assert catalog(folder, partial=True).order == ["000000000004_01.jpg"]
    shutil.copy(folder / "test/000000000004_01.jpg", folder / "test/stranger_01.jpg")
    with pytest.raises(InputError, match=r"stranger_01\.jpg"):
        catalog(folder, partial=True)
    shutil.rmtree(folder / "test")
    with pytest.raises(InputError, match="no images"):
        catalog(folder)


def test_a_list_sets_the_order_of_rows(folder: Path) -> None:
    lines = (folder / "sample_submission.csv").read_text().splitlines()
    (folder / "sample_submission.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert catalog(folder).order == ["000000000004_02.jpg", "000000000004_01.jpg"]
    (folder / "sample_submission.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(InputError, match=r"more than once, the first is 000000000004_01\.jpg"):
        catalog(folder)
    (folder / "sample_submission.csv").write_text("name,mask\n")
    with pytest.raises(InputError, match="the first line must be img,rle_mask"):
        catalog(folder)


def test_a_sample_does_not_overwrite_other_images(folder: Path) -> None:
    with pytest.raises(InputError, match="not of this sample"):
        sample.check(config.SampleFlags(out=str(folder)))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("job", "flags", "names"),
    [
        ("train", ("--data", "/nowhere"), "/nowhere"),
        ("train", ("--epoch", 3), "--epoch"),
        ("predict", ("--data", "x", "--on-bad-picture", "skip"), "--on-bad-picture"),
        ("predict", ("--data", "x", "--submission", "s.txt"), "--submission"),
        ("train", ("--data", "gs://bucket/x"), "gs://bucket/x"),
        ("train", ("--data", "DATA", "--workers", 9, "--num-cpus", 3), "--workers 9"),
        ("check", (), "--submission"),
    ],
)
def test_a_command_ends_with_one_line_and_exit_code_2(
    job: str, flags: tuple[object, ...], names: str, run_job: Run, folder: Path
) -> None:
    words = [folder if flag == "DATA" else flag for flag in flags]
    done = run_job(job, *words, *(() if job == "check" else ("--out", folder / "out")))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{job}: error: ")
    assert names in last
    assert "Traceback" not in done.stderr
