"""Each map of a stage alone and inside a real Ray Data: the same result, in the order asked for."""

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_pair

from carvana_ray import carvana, images, rle, shards, storage
from carvana_ray.batches import BatchPlan
from carvana_ray.errors import InputError
from carvana_ray.stages import dataset, evaluate, feed, predict, train

SIZE = (1280, 1918)


def some_pairs(data: Path, count: int) -> list[tuple[str, str]]:
    pictures = [entry.name for entry in storage.listing(f"{data}/train")][:count]
    return carvana.pair(pictures, [entry.name for entry in storage.listing(f"{data}/train_masks")])


def test_a_pair_is_loaded_as_the_core_loads_it(data: Path) -> None:
    pairs = some_pairs(data, 3)
    names = np.empty(1, dtype=object)
    names[0] = ["/".join(pair) for pair in pairs]
    loaded = dataset.load_pairs(
        {"pairs": names},
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
@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_is_the_plan(data: Path, ray_session: None, workers: int) -> None:
    """Through Ray Data each worker gets the batches that the plan gives it, decoded and flipped."""
    pairs = some_pairs(data, 40)
    chunks = feed.decode(pairs, f"{data}/train", f"{data}/train_masks", 8, SIZE)
    assert len(chunks) == 2
    plan = BatchPlan(train=33, val=7, batch=4, workers=workers, epochs=2, seed=1)
    stream = feed.stream(plan, chunks, flip=True, first_epoch=1)
    stream.context.execution_options.preserve_order = True
    gray = [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]
    flipped = 0
    index = plan.blocks_per_epoch
    for block in stream.iter_batches(batch_size=4 // workers):
        expected = plan.block(index)
        assert set(block["epoch"]) == {1}
        assert set(block["rank"]) == {expected.rank} == {index % workers}
        assert np.array_equal(block["weight"], expected.weight)
        for row, picture in zip(block["image"], expected.pictures, strict=True):
            plain = images.standardize(gray[picture])
            mirrored = np.allclose(row, plain[:, ::-1], atol=1e-5)
            assert mirrored or np.allclose(row, plain, atol=1e-5)
            flipped += mirrored
            assert expected.training or not mirrored
        index += 1
    assert index == 2 * plan.blocks_per_epoch
    assert 8 <= flipped <= 24  # of 32, each with a chance of a half


@pytest.mark.ray
def test_each_of_two_workers_is_dealt_its_own_blocks_in_order(
    data: Path, ray_session: None
) -> None:
    """As Ray Train splits the stream: the batches of the run must not depend on who is faster."""
    from concurrent.futures import ThreadPoolExecutor

    pairs = some_pairs(data, 40)
    chunks = feed.decode(pairs, f"{data}/train", f"{data}/train_masks", 8, SIZE)
    plan = BatchPlan(train=33, val=7, batch=4, workers=2, epochs=2, seed=1)
    stream = feed.stream(plan, chunks, flip=False)
    stream.context.execution_options.preserve_order = True
    gray = [images.load_gray((data / "train" / name).read_bytes(), 8) for name, _ in pairs]

    def consume(rank: int) -> int:
        steps = 0
        for batch in parts[rank].iter_batches(batch_size=2):
            expected = plan.block(2 * steps + rank)
            assert set(batch["rank"]) == {rank}
            assert set(batch["epoch"]) == {expected.epoch}
            for row, picture in zip(batch["image"], expected.pictures, strict=True):
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
    with pytest.raises(InputError, match="2 of 3") as error:
        feed.decode(pairs, str(tmp_path / "p"), str(tmp_path / "m"), 8, SIZE)
    _, small = draw_pair(1, (640, 959))
    (tmp_path / "m" / pairs[1][1]).write_bytes(small)
    with pytest.raises(InputError, match=f"{pairs[1][1]}: wrong-size: 640 x 959"):
        feed.decode(pairs[1:2], str(tmp_path / "p"), str(tmp_path / "m"), 8, SIZE)
    assert f"{pairs[0][0]}: not-an-image" in str(error.value)
    assert f"{pairs[2][1]}: not-an-image" in str(error.value)
    assert pairs[1][0] not in str(error.value)


def test_a_training_that_diverges_says_so_in_one_line() -> None:
    from ray.train import WorkerGroupError

    def fit() -> None:
        trace = (
            "Traceback ...\ncarvana_ray.training.Diverged: the loss of epoch 2 is nan: lower it\n"
        )
        raise WorkerGroupError("[Rank 0]", {0: RuntimeError(trace)})

    with pytest.raises(InputError, match=r"^the loss of epoch 2 is nan: lower it$"):
        train._in_thread(fit)  # type: ignore[arg-type]

    def other() -> None:
        raise WorkerGroupError("[Rank 0] something else", {0: RuntimeError("something else")})

    with pytest.raises(WorkerGroupError, match="something else"):
        train._in_thread(other)  # type: ignore[arg-type]


def block_of(file: str, names: list[str]) -> dict[str, np.ndarray]:
    column = np.empty(1, dtype=object)
    column[0] = names
    return {"file": np.array([file]), "names": column}


def test_a_bad_picture_is_a_row_with_a_reason(data: Path, tmp_path: Path) -> None:
    good = storage.listing(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    (tmp_path / "cut.jpg").write_bytes((data / "test" / good).read_bytes()[:5000])
    (tmp_path / "text.jpg").write_bytes(b"text")
    names = ["cut.jpg", good, "text.jpg"]
    loaded = dataset.load_pictures(
        block_of("x", names), folder=str(tmp_path), downscale=8, size=SIZE, blank=SIZE
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == [
        "truncated",
        "ok",
        "not-an-image",
    ]
    assert loaded["gray"].shape == (3, 160, 240)
    assert not loaded["gray"][0].any()
    assert list(loaded["place"]) == [0, 1, 2]


def test_a_picture_that_is_gone_is_a_row_too(data: Path, tmp_path: Path) -> None:
    """Else a run that was stopped could never end once a picture of an open shard is deleted."""
    good = storage.listing(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    loaded = dataset.load_pictures(
        block_of("x", [good, "gone.jpg"]), folder=str(tmp_path), downscale=8, size=SIZE, blank=SIZE
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "missing"]
    assert loaded["crc32"][1] == 0


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


def test_pictures_of_several_sizes_are_one_block(tmp_path: Path) -> None:
    for number, size in enumerate([(300, 400), (256, 512), (300, 400)]):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, size)[0])
    loaded = dataset.load_pictures(
        block_of("x", ["0.jpg", "1.jpg", "2.jpg"]),
        folder=str(tmp_path),
        downscale=4,
        size=None,
        blank=SIZE,
    )
    assert [gray.shape for gray in loaded["gray"]] == [(75, 100), (64, 128), (75, 100)]
    assert list(zip(loaded["height"], loaded["width"], strict=True)) == [
        (300, 400),
        (256, 512),
        (300, 400),
    ]


def test_a_block_holds_several_shards_or_fails(tmp_path: Path) -> None:
    """Ray Data may join small blocks; it must not get away with a part of a shard."""
    import pyarrow as pa

    def rows(file: str, places: list[int], count: int) -> pa.Table:
        n = len(places)
        return pa.table(
            {
                "file": [file] * n,
                "place": places,
                "count": [count] * n,
                "img": [f"{file}-{place}.jpg" for place in places],
                "rle_mask": ["1 2"] * n,
                "height": [10] * n,
                "width": [10] * n,
                "crc32": [5] * n,
                "status": ["ok"] * n,
            }
        )

    both = pa.concat_tables([rows("a", [0, 1], 2), rows("b", [0, 1, 2], 3)])
    written = predict.write_shards(both, folder=str(tmp_path))
    assert written.to_pydict() == {"file": ["a", "b"], "rows": [2, 3]}
    assert shards.read_shard(f"{tmp_path}/b")["img"].to_pylist() == [
        "b-0.jpg",
        "b-1.jpg",
        "b-2.jpg",
    ]
    with pytest.raises(RuntimeError, match="block of 2 rows"):
        predict.write_shards(rows("c", [0, 1], 3), folder=str(tmp_path))
    assert not (tmp_path / "c").exists()


def test_scores_are_kaggles_dice(data: Path) -> None:
    (name, mask), (other, _) = some_pairs(data, 2)
    truth = images.load_mask((data / "train_masks" / mask).read_bytes())
    shifted = np.roll(truth, 40, axis=1)
    batch = {
        "img": np.array([name, other]),
        "height": np.array([SIZE[0]] * 2),
        "width": np.array([SIZE[1]] * 2),
        "rle_mask": np.array([rle.encode(shifted), ""], dtype=object),
        "status": np.array(["ok", "ok"]),
    }
    scored = evaluate.score(batch, masks=f"{data}/train_masks", mask_of=dict(some_pairs(data, 2)))
    expected = 2 * (shifted & truth).sum() / (2 * truth.sum())
    assert scored["dice"][0] == pytest.approx(expected)
    assert scored["dice"][1] == 0
