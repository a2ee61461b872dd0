"""The stream of training batches through a real Ray Data: the batches of the plan, in order."""

import dataclasses
import itertools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
from support.pairs import draw_pair
from support.runs import first_pairs, run_of

from carvana_ray import images
from carvana_ray.config.recipes import Recipe
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.images import augment
from carvana_ray.stages.ingest.read_pairs import (
    ALL_CAR,
    ALL_GROUND,
    INVERTED,
    PairOptions,
    read_pairs,
)
from carvana_ray.stages.train import dataset
from carvana_ray.stages.train.assemble_batches import BatchSpec
from carvana_ray.stages.train.dataset import batch_stream, decode_pairs, store_budget
from carvana_ray.stages.train.progress_actor import start_progress_actor
from carvana_ray.training.batch_plan import BatchPlan

Pairs = list[tuple[str, str]]


def spec_of(data: Path, pairs: Pairs, plan: BatchPlan, **changes: Any) -> BatchSpec:
    """Decode the pairs, and return a stream of all of them without augmentation."""
    chunks, errors = decode_pairs(run_of(pairs, data / "train", data / "train_masks"), 8)
    assert errors == [""] * len(pairs)
    assert len(chunks) == -(-len(pairs) // 32)
    actor = start_progress_actor()
    ray.get(actor.set_chunks.remote(chunks))
    values = {"kept": np.arange(len(pairs)), "recipe": Recipe(flip=False), **changes}
    return BatchSpec(plan=plan, progress=actor, **values)


def ordered(stream: ray.data.Dataset) -> ray.data.Dataset:
    stream.context.execution_options.preserve_order = True
    return stream


def load_grays(data: Path, pairs: Pairs) -> list[np.ndarray]:
    return [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]


@pytest.mark.ray
@pytest.mark.parametrize(("workers", "steps"), [(1, 1), (2, 1), (1, 4)])
def test_the_stream_is_the_plan(data: Path, ray_session: None, workers: int, steps: int) -> None:
    """Through Ray Data each worker gets the batches that the plan gives it, decoded and flipped."""
    pairs = first_pairs(data, 40)
    plan = BatchPlan(train=33, val=7, batch=4, workers=workers, epochs=2, seed=1)
    stream = ordered(batch_stream(spec_of(data, pairs, plan, recipe=Recipe()), 1, steps))
    gray = load_grays(data, pairs)
    flipped = 0
    index = plan.blocks_per_epoch
    for block in stream.iter_batches(batch_size=4 // workers):
        expected = plan.worker_batch(index)
        assert set(block["epoch"]) == {1}
        assert set(block["rank"]) == {expected.rank} == {index % workers}
        assert np.array_equal(block["weight"], expected.weight)
        for row, image in zip(block["image"], expected.indices, strict=True):
            plain = images.standardize(gray[image])
            mirrored = np.allclose(row, plain[:, ::-1], atol=1e-5)
            assert mirrored or np.allclose(row, plain, atol=1e-5)
            flipped += mirrored
            assert expected.training or not mirrored
        index += 1
    assert index == 2 * plan.blocks_per_epoch
    assert 8 <= flipped <= 24  # of 32, each with a chance of a half


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_an_affine_stream_carries_gray_levels_and_a_matrix_for_each_image(
    data: Path, ray_session: None, workers: int
) -> None:
    """The matrix depends on the image and the epoch, not on the number of workers."""
    pairs = first_pairs(data, 40)
    plan = BatchPlan(train=33, val=7, batch=4, workers=workers, epochs=2, seed=1)
    recipe = Recipe(affine_augment=True, max_shift=0.1, max_log_scale=0.2)
    spec = spec_of(data, pairs, plan, recipe=recipe)
    stream = ordered(batch_stream(spec, steps=3))
    gray = load_grays(data, pairs)
    matrices: dict[tuple[int, int], list[float]] = {}
    for index, batch in enumerate(stream.iter_batches(batch_size=4 // workers)):
        # Three steps of a worker make a block, then three of the next one.
        group, within = divmod(index, 3 * workers)
        rank, step = divmod(within, 3)
        expected = plan.worker_batch((3 * group + step) * workers + rank)
        assert set(batch) == {"image", "soft_mask", "weight", "affine", "epoch", "rank"}
        assert batch["image"].dtype == batch["soft_mask"].dtype == np.uint8
        assert batch["affine"].shape == (4 // workers, 2, 3)
        for row, matrix, image in zip(
            batch["image"], batch["affine"], expected.indices.tolist(), strict=True
        ):
            assert np.array_equal(row, gray[image]), "neither transformed nor mirrored yet"
            if expected.training:
                rng = np.random.default_rng((1, expected.epoch, image, 1))
                assert np.array_equal(matrix, augment.sample_affine(rng, True, 0.1, 0.2))
                matrices[expected.epoch, image] = matrix.ravel().tolist()
        if index == 3 * workers * 5 - 1:  # whole groups, an epoch and a half
            break
    assert len({tuple(matrix) for matrix in matrices.values()}) == len(matrices) > 40


@pytest.mark.ray
def test_each_of_two_workers_gets_its_own_blocks_in_order(data: Path, ray_session: None) -> None:
    """As Ray Train splits the stream: the batches must not depend on which worker is faster."""
    pairs = first_pairs(data, 40)
    plan = BatchPlan(train=33, val=7, batch=4, workers=2, epochs=2, seed=1)
    stream = ordered(batch_stream(spec_of(data, pairs, plan), steps=3))
    gray = load_grays(data, pairs)

    def consume(rank: int) -> int:
        steps = 0
        for batch in parts[rank].iter_batches(batch_size=2):
            expected = plan.worker_batch(2 * steps + rank)
            assert set(batch["rank"]) == {rank}
            assert set(batch["epoch"]) == {expected.epoch}
            for row, image in zip(batch["image"], expected.indices, strict=True):
                assert np.allclose(row, images.standardize(gray[image]), atol=1e-5)
            steps += 1
        return steps

    parts = stream.streaming_split(2, equal=True)
    with ThreadPoolExecutor(2) as pool:
        steps = list(pool.map(consume, range(2)))
    assert steps == [plan.total_steps] * 2


@pytest.mark.ray
def test_skipped_pairs_are_in_no_batch(data: Path, ray_session: None) -> None:
    pairs = first_pairs(data, 10)
    kept = np.array([0, 2, 3, 5, 6, 8, 9])
    plan = BatchPlan(train=5, val=2, batch=2, workers=1, epochs=1, seed=1)
    stream = ordered(batch_stream(spec_of(data, pairs, plan, kept=kept)))
    gray = load_grays(data, pairs)
    for index, block in enumerate(stream.iter_batches(batch_size=2)):
        for row, image in zip(block["image"], plan.worker_batch(index).indices, strict=True):
            assert np.allclose(row, images.standardize(gray[kept[image]]), atol=1e-5)


@pytest.mark.ray
def test_all_files_that_cannot_be_used_are_named(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "m").mkdir()
    for image, mask in (pairs := first_pairs(data, 3)):
        (tmp_path / "p" / image).write_bytes((data / "train" / image).read_bytes())
        (tmp_path / "m" / mask).write_bytes((data / "train_masks" / mask).read_bytes())
    (tmp_path / "p" / pairs[0][0]).write_bytes(b"<html>no image</html>")
    (tmp_path / "m" / pairs[2][1]).write_bytes((data / "train" / pairs[2][0]).read_bytes())
    run = run_of(pairs, tmp_path / "p", tmp_path / "m")
    _, errors = decode_pairs(run, 8)
    assert errors[0].startswith(f"{pairs[0][0]}: not-an-image")
    assert errors[1] == ""
    assert errors[2].startswith(f"{pairs[2][1]}: mask-values")
    _, small = draw_pair(1, (640, 959))
    (tmp_path / "m" / pairs[1][1]).write_bytes(small)
    run = run_of(pairs[1:2], tmp_path / "p", tmp_path / "m")
    run = dataclasses.replace(run, crcs={pairs[0][1]: 1})
    assert decode_pairs(run, 8)[1] == [
        f"{pairs[1][1]}: wrong-size: 640 x 959 (height x width), expected 1280 x 1918"
    ]
    run = dataclasses.replace(run, crcs={pairs[1][0]: 1})
    assert decode_pairs(run, 8)[1][0].startswith(f"{pairs[1][0]}: checksum")


@pytest.mark.ray
def test_a_file_that_cannot_be_reached_ends_training_with_its_name(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    pairs = first_pairs(data, 3)
    (tmp_path / "p").mkdir()
    for name, _ in pairs:
        (tmp_path / "p" / name).symlink_to(data / "train" / name)
    (tmp_path / "p" / pairs[1][0]).unlink()
    (tmp_path / "p" / pairs[1][0]).symlink_to("/proc/self/mem")  # reading it fails with EIO
    with pytest.raises(IncompleteError, match=f"1 file cannot .*{pairs[1][0]}") as error:
        decode_pairs(run_of(pairs, tmp_path / "p", data / "train_masks"), 8)
    assert "\n" not in str(error.value)


@pytest.mark.ray
@pytest.mark.slow
def test_a_pair_that_crashes_its_process_is_named(
    data: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its chunk dies while an earlier one is still being decoded."""
    pairs = first_pairs(data, 3)
    image, mask = pairs[2]

    def read_or_crash(batch: dict[str, Any], options: PairOptions) -> dict[str, Any]:
        names = list(batch["image_names"][0])
        if image in names:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(names) > 1:
            time.sleep(10)
        return read_pairs(batch, options)

    monkeypatch.setattr(dataset, "read_pairs", read_or_crash)
    monkeypatch.setattr(dataset, "CHUNK", 2)
    with pytest.raises(InputError, match=f"{image} or {mask} crashes the process") as error:
        decode_pairs(run_of(pairs, data / "train", data / "train_masks"), 8)
    assert isinstance(error.value.__cause__, ray.exceptions.WorkerCrashedError)


@pytest.mark.ray
@pytest.mark.slow
def test_a_process_that_is_lost_without_a_guilty_pair_is_one_line(
    data: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = first_pairs(data, 2)

    def read_or_crash(batch: dict[str, Any], options: PairOptions) -> dict[str, Any]:
        if len(batch["image_names"][0]) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_pairs(batch, options)

    monkeypatch.setattr(dataset, "read_pairs", read_or_crash)
    with pytest.raises(IncompleteError, match=r"a process or a machine was lost .*again") as error:
        decode_pairs(run_of(pairs, data / "train", data / "train_masks"), 8)
    assert "\n" not in str(error.value)


def test_the_stream_leaves_space_for_the_decoded_pairs() -> None:
    """Ray spills from 80 % on."""
    kaggle = 2 * 320 * 480 * 5088
    for store in (2.4e9, 5e9, 40e9):
        assert kaggle + store_budget(int(store), kaggle) < 0.8 * store
    assert store_budget(int(40e9), kaggle) == int(20e9), "Ray's own limit, if it is enough"
    assert store_budget(int(1e9), kaggle) > 10 * 16 * 5 * 320 * 480, "ten batches in any case"


def test_unusual_masks_are_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [(f"{n}.jpg", f"{n}_mask.png") for n in range(6)]
    for name in itertools.chain.from_iterable(pairs):
        (tmp_path / name).touch()
    run = run_of(pairs, tmp_path, tmp_path)
    warn = dataset._warn_of_unusual_masks
    warn(run, [""] * 6, [""] * 6)
    assert not caplog.records
    notes = ["", ALL_GROUND, INVERTED, ALL_GROUND, ALL_CAR, ""]
    warn(run, ["", "", "", "", "", "5_mask.png: truncated"], notes)
    (record,) = caplog.records
    assert record.getMessage() == (
        "look at these of 5 masks: 2 all ground, such as 1_mask.png; "
        "1 car in all four corners (inverted?), such as 2_mask.png; 1 all car, such as 4_mask.png"
    )
    notes = [ALL_GROUND, ALL_GROUND, ALL_GROUND, ALL_CAR, "", ""]
    with pytest.raises(InputError, match="no mask shows a car and ground: of 4 masks 3 all gr"):
        warn(run, ["", "", "", "", "bad", "bad"], notes)
