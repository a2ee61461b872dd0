"""One line of what a job will do, and one more where the disk may be too small for it."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import s3_servers

from carvana_ray import storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints import train_state as states
from carvana_ray.config.flags import SampleFlags, TrainFlags
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages import sample
from carvana_ray.stages.cutout import stage as cutout
from carvana_ray.storage.router import FileInfo
from carvana_ray.training import run as course


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Set the bytes that are free on the disk."""

    def have(count: int) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=count)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    return have


@pytest.mark.parametrize(("free_bytes", "warns"), [(10**9, False), (1_250, False), (1_249, True)])
def test_a_line_says_what_is_needed_and_another_warns(
    free: Callable[[int], None],
    free_bytes: int,
    warns: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    free(free_bytes)
    outlook.announce("predict", "3 pictures", str(tmp_path / "not/yet/there"), 1_000, "2 GPUs")
    first, *others = caplog.records
    assert first.getMessage().startswith("predict: 3 pictures; 2 GPUs; needs about 0 MB, ")
    assert first.getMessage().endswith(" are free")
    assert first.levelno == logging.INFO
    assert [one.levelno for one in others] == [logging.WARNING] * warns
    assert not any("\n" in one.getMessage() for one in caplog.records)
    assert not (tmp_path / "not").exists()


def test_a_line_says_who_decodes() -> None:
    assert outlook.describe_workers(WorkerAllocation(2, 1, True)) == "2 GPUs"
    assert (
        outlook.describe_workers(WorkerAllocation(1, 1, True, decode=0.3))
        == "1 GPU (decoding 30% of JPEGs)"
    )


def test_of_s3_the_need_alone_is_said(
    s3: s3_servers.Server,
    bucket: Callable[[s3_servers.Server], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    home = bucket(s3)
    assert storage.free_space(home) is None
    outlook.announce("train", "5 epochs", f"{home}/runs", 10**18)
    (line,) = (one.getMessage() for one in caplog.records)
    assert line == "train: 5 epochs; needs about 1,000,000 TB"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 MB"),
        (-5, "0 MB"),
        (12_400_000, "12 MB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1.0 GB"),
        (1_340_000_000, "1.3 GB"),
        (60_700_000_000, "61 GB"),
        (2_000_000_000_000, "2.0 TB"),
    ],
)
def test_bytes_in_words(count: int, said: str) -> None:
    assert outlook.format_bytes(count) == said


def test_counts_and_places_in_words() -> None:
    assert outlook.count_of(1, "pictures") == "1 picture"
    assert outlook.count_of(100_064, "pictures", 256) == "100,064 pictures, 256 of them done before"
    assert outlook.describe_workers(WorkerAllocation(1, 2, False)) == "1 process of 2 CPUs"
    assert outlook.describe_workers(WorkerAllocation(3, 1, False)) == "3 processes of 1 CPU"
    assert outlook.describe_workers(WorkerAllocation(4, 1, True)) == "4 GPUs"
    assert checkpoint.describe_network("best", 32, 4) == "recipe best, 32 channels, 1/4 of the size"
    assert checkpoint.describe_network("best", 32, 1) == "recipe best, 32 channels, full size"


def test_files_taken_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123")
    assert storage.dir_size(str(tmp_path)) == 3
    assert storage.dir_size(str(tmp_path / "missing")) == 0


def test_states_that_are_there_are_not_needed_again() -> None:
    flags = TrainFlags(base=4)
    needed = [course.disk_bytes(flags, there) for there in range(8)]
    state = needed[0] - needed[1]
    assert needed[1] - needed[2] == state > 0
    assert needed[states.KEEP_LAST + 1] == needed[7] > state, "one is written before one goes"


def test_pictures_that_are_drawn_are_not_needed_again(tmp_path: Path) -> None:
    flags = SampleFlags(out=str(tmp_path), sample_cars=2, sample_test_cars=1)
    assert sample.room(flags) == 48 * sample.PICTURE_BYTES
    folder, cars = next(iter(sample._cars(flags).items()))
    (tmp_path / folder).mkdir()
    for view in range(1, 17):
        (tmp_path / folder / f"{cars[0][1]}_{view:02d}.jpg").touch()
    assert sample.room(flags) == 32 * sample.PICTURE_BYTES
    sample.check(flags)


def test_a_cut_out_needs_most_before_a_picture_and_least_as_a_mask() -> None:
    entries = [FileInfo("a.jpg", 100_000, ""), FileInfo("b.png", 1_000_000, "")]

    def needed(**style: object) -> int:
        values = {"soft": True, "background": None, "format": "png", "mask_only": False}
        return cutout._room(entries, CutoutStyle(**{**values, **style}))

    assert needed() == 600_000 + 1_000_000
    assert needed(background=(1, 2, 3)) == needed()
    assert needed(background=b"a picture") == 1_200_000 + 1_000_000
    assert needed(format="webp") == 100_000 + 1_000_000
    assert needed(mask_only=True) < needed(format="webp")
