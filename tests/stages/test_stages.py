"""Each map of a stage alone and inside a real Ray Data: the same result, in the order asked for."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from support.blocks import batch_of
from support.pairs import draw_pair

from carvana_ray import images, rle, storage
from carvana_ray.data import layout as carvana
from carvana_ray.data import quarantine
from carvana_ray.data.catalog import Catalog
from carvana_ray.errors import IncompleteError
from carvana_ray.images import augment
from carvana_ray.review import shape as silhouette
from carvana_ray.runtime.background import run_in_background
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import crash_isolation as poison
from carvana_ray.stages.ingest import read_pairs as reading_pairs
from carvana_ray.stages.predict import measure_masks as look
from carvana_ray.stages.predict import review_masks as review
from carvana_ray.stages.train import dataset as feed
from carvana_ray.stages.train import progress_actor as watch
from carvana_ray.stages.train import trainer as fitting
from carvana_ray.storage import FileInfo
from carvana_ray.submission import shards
from carvana_ray.submission.plan import PlanPart
from carvana_ray.training import loop as training
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.run import TrainingRun

SIZE = (1280, 1918)


def course_of(
    pairs: list[tuple[str, str]], pictures: Path, masks: Path, plan: BatchPlan | None = None
) -> TrainingRun:
    """Return a course of these pairs, for the little that the stages ask of it."""
    some = BatchPlan(train=len(pairs), val=0, batch=1, workers=1, epochs=1, seed=0)
    return TrainingRun(
        pictures=str(pictures),
        masks=str(masks),
        pairs=pairs,
        cars=([], [], []),
        plan=plan or some,
        size=SIZE,
        run="run",
        crcs={},
    )


def decoded(data: Path, pairs: list[tuple[str, str]]) -> Any:
    """Return a board with the decoded pairs, in chunks of 32."""
    chunks, errors = feed.decode_pairs(course_of(pairs, data / "train", data / "train_masks"), 8)
    assert errors == [""] * len(pairs)
    assert len(chunks) == -(-len(pairs) // 32)
    found = watch.board()
    ray.get(found.put.remote(chunks))
    return found


def some_pairs(data: Path, count: int) -> list[tuple[str, str]]:
    pictures = [entry.name for entry in storage.list_files(f"{data}/train")][:count]
    return carvana.pair_with_masks(
        pictures, [entry.name for entry in storage.list_files(f"{data}/train_masks")]
    )


def test_a_pair_is_loaded_as_the_core_loads_it(data: Path) -> None:
    pairs = some_pairs(data, 3)
    loaded = reading_pairs.read_pairs(
        batch_of(reading_pairs.pairs_row(pairs, {})),
        pictures=f"{data}/train",
        masks=f"{data}/train_masks",
        downscale=8,
        size=SIZE,
    )
    assert list(loaded["error"]) == [""] * 3
    for place, (picture, mask) in enumerate(pairs):
        gray = images.load_gray((data / "train" / picture).read_bytes(), 8)
        truth = images.load_mask((data / "train_masks" / mask).read_bytes())
        assert np.array_equal(loaded["gray"][place], gray)
        assert np.array_equal(loaded["share"][place], images.shrink_mask(truth, 8))


@pytest.mark.ray
@pytest.mark.parametrize(("workers", "steps"), [(1, 1), (2, 1), (1, 4)])
def test_the_stream_is_the_plan(data: Path, ray_session: None, workers: int, steps: int) -> None:
    """Through Ray Data each worker gets the batches that the plan gives it, decoded and flipped."""
    pairs = some_pairs(data, 40)
    board = decoded(data, pairs)
    plan = BatchPlan(train=33, val=7, batch=4, workers=workers, epochs=2, seed=1)
    stream = feed.batch_stream(plan, board, np.arange(40), flip=True, first_epoch=1, steps=steps)
    stream.context.execution_options.preserve_order = True
    gray = [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]
    flipped = 0
    index = plan.blocks_per_epoch
    for block in stream.iter_batches(batch_size=4 // workers):
        expected = plan.worker_batch(index)
        assert set(block["epoch"]) == {1}
        assert set(block["rank"]) == {expected.rank} == {index % workers}
        assert np.array_equal(block["weight"], expected.weight)
        for row, picture in zip(block["image"], expected.indices, strict=True):
            plain = images.standardize(gray[picture])
            mirrored = np.allclose(row, plain[:, ::-1], atol=1e-5)
            assert mirrored or np.allclose(row, plain, atol=1e-5)
            flipped += mirrored
            assert expected.training or not mirrored
        index += 1
    assert index == 2 * plan.blocks_per_epoch
    assert 8 <= flipped <= 24  # of 32, each with a chance of a half


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_of_moves_carries_gray_levels_and_each_picture_s_own_move(
    data: Path, ray_session: None, workers: int
) -> None:
    """The moves are drawn for the picture and the epoch, however many workers there are."""
    pairs = some_pairs(data, 40)
    board = decoded(data, pairs)
    plan = BatchPlan(train=33, val=7, batch=4, workers=workers, epochs=2, seed=1)
    stream = feed.batch_stream(plan, board, np.arange(40), flip=True, jitter=True, steps=3)
    stream.context.execution_options.preserve_order = True
    gray = [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]
    found: dict[tuple[int, int], list[float]] = {}
    for index, batch in enumerate(stream.iter_batches(batch_size=4 // workers)):
        # Three steps of a worker make a block, then three of the next one.
        group, within = divmod(index, 3 * workers)
        rank, step = divmod(within, 3)
        expected = plan.worker_batch((3 * group + step) * workers + rank)
        assert set(batch) == {"image", "share", "weight", "warp", "epoch", "rank"}
        assert batch["image"].dtype == batch["share"].dtype == np.uint8
        assert batch["warp"].shape == (4 // workers, 2, 3)
        for row, move, picture in zip(
            batch["image"], batch["warp"], expected.indices.tolist(), strict=True
        ):
            assert np.array_equal(row, gray[picture]), "neither moved nor mirrored yet"
            if expected.training:
                rng = np.random.default_rng((1, expected.epoch, picture, 1))
                assert np.array_equal(move, augment.sample_affine(rng, flip=True))
                found[expected.epoch, picture] = move.ravel().tolist()
        if index == 3 * workers * 5 - 1:  # whole groups, an epoch and a half
            break
    assert len({tuple(move) for move in found.values()}) == len(found) > 40


@pytest.mark.ray
def test_each_of_two_workers_is_dealt_its_own_blocks_in_order(
    data: Path, ray_session: None
) -> None:
    """As Ray Train splits the stream: the batches of the run must not depend on who is faster."""
    from concurrent.futures import ThreadPoolExecutor

    pairs = some_pairs(data, 40)
    board = decoded(data, pairs)
    plan = BatchPlan(train=33, val=7, batch=4, workers=2, epochs=2, seed=1)
    stream = feed.batch_stream(plan, board, np.arange(40), flip=False, steps=3)
    stream.context.execution_options.preserve_order = True
    gray = [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]

    def consume(rank: int) -> int:
        steps = 0
        for batch in parts[rank].iter_batches(batch_size=2):
            expected = plan.worker_batch(2 * steps + rank)
            assert set(batch["rank"]) == {rank}
            assert set(batch["epoch"]) == {expected.epoch}
            for row, picture in zip(batch["image"], expected.indices, strict=True):
                assert np.allclose(row, images.standardize(gray[picture]), atol=1e-5)
            steps += 1
        return steps

    parts = stream.streaming_split(2, equal=True)
    with ThreadPoolExecutor(2) as pool:
        steps = list(pool.map(consume, range(2)))
    assert steps == [2 * (plan.train_steps + plan.val_steps)] * 2


@pytest.mark.ray
def test_files_that_cannot_be_used_are_all_named(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "m").mkdir()
    for picture, mask in (pairs := some_pairs(data, 3)):
        (tmp_path / "p" / picture).write_bytes((data / "train" / picture).read_bytes())
        (tmp_path / "m" / mask).write_bytes((data / "train_masks" / mask).read_bytes())
    (tmp_path / "p" / pairs[0][0]).write_bytes(b"<html>no picture</html>")
    (tmp_path / "m" / pairs[2][1]).write_bytes((data / "train" / pairs[2][0]).read_bytes())
    course = course_of(pairs, tmp_path / "p", tmp_path / "m")
    _, errors = feed.decode_pairs(course, 8)
    assert errors[0].startswith(f"{pairs[0][0]}: not-an-image")
    assert errors[1] == ""
    assert errors[2].startswith(f"{pairs[2][1]}: not-an-image")
    _, small = draw_pair(1, (640, 959))
    (tmp_path / "m" / pairs[1][1]).write_bytes(small)
    course = dataclasses.replace(course, pairs=pairs[1:2], crcs={pairs[0][1]: 1})
    assert feed.decode_pairs(course, 8)[1] == [
        f"{pairs[1][1]}: wrong-size: 640 x 959 (height x width), expected 1280 x 1918"
    ]
    course = dataclasses.replace(course, crcs={pairs[1][0]: 1})
    assert feed.decode_pairs(course, 8)[1][0].startswith(f"{pairs[1][0]}: checksum")


@pytest.mark.ray
def test_a_file_that_cannot_be_reached_ends_training_with_its_name(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    pairs = some_pairs(data, 3)
    (tmp_path / "p").mkdir()
    for name, _ in pairs:
        (tmp_path / "p" / name).symlink_to(data / "train" / name)
    (tmp_path / "p" / pairs[1][0]).unlink()
    (tmp_path / "p" / pairs[1][0]).symlink_to("/proc/self/mem")  # a read of it fails: EIO
    with pytest.raises(IncompleteError, match=pairs[1][0]) as error:
        feed.decode_pairs(course_of(pairs, tmp_path / "p", data / "train_masks"), 8)
    assert "\n" not in str(error.value)


@pytest.mark.ray
def test_the_name_whose_work_kills_its_process_is_found(ray_session: None) -> None:
    def work(name: str) -> None:
        if name == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "raises":
            raise ValueError("an error is not a death")

    assert poison.find_crashing(["a", "kills", "raises", "b"], work) == ["kills"]
    assert poison.find_crashing(["a", "raises"], work) == []


@pytest.mark.ray
def test_pictures_that_are_left_out_are_in_no_batch(data: Path, ray_session: None) -> None:
    pairs = some_pairs(data, 10)
    board = decoded(data, pairs)
    kept = np.array([0, 2, 3, 5, 6, 8, 9])
    plan = BatchPlan(train=5, val=2, batch=2, workers=1, epochs=1, seed=1)
    stream = feed.batch_stream(plan, board, kept, flip=False)
    stream.context.execution_options.preserve_order = True
    gray = [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]
    for index, block in enumerate(stream.iter_batches(batch_size=2)):
        for row, picture in zip(block["image"], plan.worker_batch(index).indices, strict=True):
            assert np.allclose(row, images.standardize(gray[kept[picture]]), atol=1e-5)


def test_a_training_that_diverges_says_so_in_one_line() -> None:
    from ray.train import WorkerGroupError

    def fit() -> None:
        trace = (
            "Traceback ...\ncarvana_ray.training.Diverged: the loss of epoch 2 is nan: lower it\n"
        )
        raise WorkerGroupError("[Rank 0]", {0: RuntimeError(trace)})

    with pytest.raises(training.DivergedError, match=r"^the loss of epoch 2 is nan: lower it$"):
        fitting.wait_for_training(run_in_background(fit))

    def other() -> None:
        raise WorkerGroupError("[Rank 0] something else", {0: RuntimeError("something else")})

    with pytest.raises(WorkerGroupError, match="something else"):
        fitting.wait_for_training(run_in_background(other))


@pytest.mark.ray
def test_a_block_stays_whole_however_large(ray_session: None) -> None:
    import ray.data

    def ten_rows_of_30_mb(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"x": np.zeros((10, 30_000_000), dtype=np.uint8)}

    cut = ray.data.from_items([{"a": 0}], override_num_blocks=1)
    counts = []
    for blocks in (cut, dataset.from_blocks([{"a": 0}])):
        mapped = blocks.map_batches(ten_rows_of_30_mb, batch_size=None)
        counts.append([bundle.num_rows() for bundle in mapped.iter_internal_ref_bundles()])
    assert len(counts[0]) > 1, "the test needs a block that Ray Data would cut"
    assert counts[1] == [10]


def test_the_stream_leaves_the_decoded_pictures_in_memory() -> None:
    """Ray spills from 80 % on."""
    kaggle = 2 * 320 * 480 * 5088
    for store in (2.4e9, 5e9, 40e9):
        assert kaggle + feed.store_budget(int(store), kaggle) < 0.8 * store
    assert feed.store_budget(int(40e9), kaggle) == int(20e9), (
        "no less than Ray's own bound where it fits"
    )
    assert feed.store_budget(int(1e9), kaggle) > 10 * 16 * 5 * 320 * 480, "ten batches in any case"


def written_shard(folder: Path, masks: list[np.ndarray], bad: set[int]) -> PlanPart:
    """Write the one shard of a plan of masks; return the plan."""
    names = [f"car_{number:02d}.jpg" for number in range(1, len(masks) + 1)]
    part = PlanPart(1, tuple(FileInfo(name, 1, "1") for name in names), 1)
    rows = {
        "img": names,
        "rle_mask": ["" if n in bad else rle.encode(mask) for n, mask in enumerate(masks)],
        "height": [mask.shape[0] for mask in masks],
        "width": [mask.shape[1] for mask in masks],
        "crc32": list(range(len(masks))),
        "orientation": [1] * len(masks),
        "status": ["truncated: x" if n in bad else quarantine.OK for n in range(len(masks))],
        "row": list(range(len(masks))),
        "rows": [len(masks)] * len(masks),
    }
    data = shards.serialize_shard(pa.table(rows), shards.shard_key(folder.name, part, 0))
    storage.write_atomic(str(folder / part.shard_name(0)), data)
    return part


def test_the_second_look_sees_the_masks_of_the_catalogue_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 40)) < 0.5 for _ in range(4)]
    part = written_shard(tmp_path, masks, bad={3})
    uri = str(tmp_path / part.shard_name(0))
    found = look.measure_masks({"uri": [uri], "keep": [[True, False, True, True]]})
    assert found["img"].tolist() == ["car_01.jpg", "car_03.jpg", "car_04.jpg"]
    assert found["crc32"].tolist() == [0, 2, 3]
    assert found["status"].tolist() == ["ok", "ok", "truncated: x"]
    assert found["area"].tolist() == [masks[0].sum(), masks[2].sum(), 0]
    for place, mask in ((0, masks[0]), (1, masks[2])):
        facts = silhouette.measure(rle.encode(mask), *mask.shape)
        assert {name: found[name][place] for name in look.FIELDS} == dataclasses.asdict(facts)


@pytest.mark.ray
def test_a_list_that_cannot_be_made_says_why_and_costs_nothing(
    tmp_path: Path, ray_session: None
) -> None:
    part = written_shard(tmp_path, [np.ones((8, 8), dtype=bool)] * 2, bad=set())
    catalogue = Catalog(str(tmp_path), list(part.images), ["car_01.jpg"], None, {})
    (tmp_path / part.shard_name(0)).write_bytes(b"torn")
    found, crcs = review.review_masks(str(tmp_path), str(tmp_path), [part], catalogue, 2)
    assert found["problem"]
    assert (found["looked"], found["figures"], crcs) == (0, [], {})
    assert not (tmp_path / "review.csv").exists()
