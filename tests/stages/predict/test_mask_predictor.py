"""The chain of masks where a GPU decodes, with a decoder in full standing in for its engines."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.pairs import draw_pair
from support.watched import make_model
from test_jpegs import by_pillow

from carvana_ray import images, rle
from carvana_ray.data import quarantine
from carvana_ray.images import validate as formats
from carvana_ray.inference import nvjpeg as jpegs
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.predict import mask_predictor as masks

SIZE = (320, 480)
MIXED = 0.63  # 0.jpg is left to engines then, 1.jpg of the same size is not
ON_CPU, DECODING = WorkerAllocation(1, 1, False), WorkerAllocation(1, 1, False, decode=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with seven pictures, of which some are bad, and a model."""
    pictures = [draw_pair(number, SIZE)[0] for number in range(3)]
    damaged = bytearray(pictures[1])
    table = damaged.find(b"\xff\xc4") + 5  # of the code's lengths; none reads it but a decoder
    damaged[table : table + 16] = b"\xff" * 16
    files = {
        "0.jpg": pictures[0],
        "1.jpg": pictures[1],
        "2.jpg": draw_pair(5, (300, 400))[0],
        "3.jpg": pictures[2][:900],
        "4.jpg": b"text",
        "5.jpg": bytes(damaged),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    make_model(tmp_path / "model", pictures)
    return tmp_path


def loaded(folder: Path, coded: float) -> dict[str, Any]:
    row = reading.block_row("x", [f"{number}.jpg" for number in range(7)])
    batch = {key: [value] for key, value in row.items()}
    how = {"folder": str(folder), "downscale": 8, "size": None, "blank": SIZE, "coded": coded}
    return reading.read_images(batch, **how)  # type: ignore[arg-type]


def test_files_travel_as_they_are_and_what_is_bad_is_blank(folder: Path) -> None:
    found, plain = loaded(folder, coded=1), loaded(folder, coded=0)
    assert set(found) - set(plain) == {"coded"}
    assert found["coded"].tolist() == [True, True, True, False, False, True, False]
    assert found["gray"][1].shape[0] == 1
    assert found["gray"][1].tobytes() == (folder / "1.jpg").read_bytes()
    assert not found["gray"][4].any()
    assert found["gray"][4].shape == plain["gray"][4].shape == (40, 60)
    kinds = [[str(one).split(":")[0] for one in some["status"]] for some in (found, plain)]
    assert kinds[0][:5] == kinds[1][:5] == ["ok", "ok", "ok", "truncated", "not-an-image"]
    assert kinds[0][5] == "ok", "its pixels are looked at where they are decoded"
    assert kinds[0][6] == kinds[1][6] == "missing"


def test_a_file_too_large_to_travel_is_decoded_by_who_has_read_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [(folder / f"{number}.jpg").stat().st_size for number in range(3)]
    monkeypatch.setattr(reading, "MOST_CODED", sorted(lengths)[1])
    found, plain = loaded(folder, coded=1), loaded(folder, coded=0)
    assert found["coded"][:3].tolist() == [length < max(lengths) for length in lengths]
    largest = lengths.index(max(lengths))
    assert np.array_equal(found["gray"][largest], plain["gray"][largest])


@pytest.mark.ray
@pytest.mark.parametrize("share", [MIXED, 1.0])
def test_files_come_out_of_ray_as_they_went_in(
    folder: Path, ray_session: None, share: float
) -> None:
    row = reading.block_row("x", [f"{number}.jpg" for number in range(7)])
    how = {"folder": str(folder), "downscale": 8, "size": None, "blank": SIZE, "coded": share}
    read = dataset.from_blocks([row]).map_batches(
        reading.read_images, batch_size=None, fn_kwargs=how
    )
    (batch,) = read.iter_batches(batch_size=None)
    expected = loaded(folder, coded=share)
    for one, other in zip(batch["gray"], expected["gray"], strict=True):
        assert np.array_equal(one, other)
    assert batch["coded"].tolist() == expected["coded"].tolist()


@pytest.mark.parametrize("share", [MIXED, 1.0])
@pytest.mark.parametrize("kind", [masks.MaskPredictor, masks.SoftMaskPredictor])
def test_masks_are_those_of_pictures_that_are_decoded_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[masks.MaskPredictor], share: float
) -> None:
    monkeypatch.setattr(jpegs, "make_decoder", lambda device: by_pillow)
    plain = kind(str(folder / "model"), ON_CPU)(loaded(folder, coded=0))
    mixed = loaded(folder, coded=share)
    assert mixed["coded"][:2].tolist() == [True, share == 1]
    found = kind(str(folder / "model"), DECODING)(mixed)
    assert set(found) == set(plain)
    assert found["status"].tolist() == plain["status"].tolist(), "5.jpg is bad for both"
    assert str(found["status"][5]).startswith("truncated")
    sizes = list(zip(found["height"], found["width"], strict=True))
    for place in range(3):
        assert found["status"][place] == quarantine.OK
        if kind is masks.SoftMaskPredictor:
            differ = found["share"][place].astype(int) - plain["share"][place]
            assert np.abs(differ).mean() < 8, "steep edges, and a gray level is another one"
            continue
        one, other = (
            rle.decode(rle.text_from_bounds(some["ends"][place]), *sizes[place])
            for some in (found, plain)
        )
        assert other.any()
        assert (one != other).mean() < 0.02
    if kind is masks.MaskPredictor:
        assert found["ends"][3:].tolist() == [b""] * 4


def test_a_bad_picture_has_no_mask_whatever_the_network_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ends = masks.MaskPredictor(str(folder / "model"), ON_CPU), np.array([0, 9], np.int32)
    monkeypatch.setattr(made._predictor, "ends_of_any", lambda _, sizes: [ends] * len(sizes))
    found = made(loaded(folder, coded=0))
    good = [status == quarantine.OK for status in found["status"]]
    assert good == [True, True, True, False, False, False, False]
    assert [one == ends.tobytes() for one in found["ends"]] == good
    assert [one == b"" for one in found["ends"]] == [not one for one in good]


def test_a_gpu_at_fault_ends_its_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA says the same error ever after; Ray starts a new process, and its block again."""

    class Ended(Exception):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr("os._exit", end)
    ask = masks.MaskPredictor(str(folder / "model"), ON_CPU)

    def fault(*_: object) -> list[Any]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(ask._predictor, "ends_of_any", fault)
    with pytest.raises(Ended):
        ask(loaded(folder, coded=0))


@pytest.mark.ray
def test_blocks_of_files_and_of_gray_levels_are_one_batch(folder: Path, ray_session: None) -> None:
    """Ray Data joins small blocks to a batch; what has one shape in each has several in all."""
    picture = (folder / "0.jpg").read_bytes()
    names = [f"x{number}.jpg" for number in range(40)]
    left = [name for name in names if formats.left_to_engines(name, 0.5)]
    kept = [name for name in names if name not in left]
    blocks = [kept[:2], left[:2], [left[2]], [kept[2]], [kept[3], left[3]]]
    for name in names:
        (folder / name).write_bytes(picture)
    how = {"folder": str(folder), "downscale": 8, "size": SIZE, "blank": SIZE, "coded": 0.5}
    rows = [reading.block_row(str(place), some) for place, some in enumerate(blocks)]
    read = dataset.from_blocks(rows).map_batches(
        reading.read_images, batch_size=None, fn_kwargs=how
    )
    joined = read.map_batches(lambda batch: {**batch, "of": [len(batch["img"])] * 8}, batch_size=8)
    gray = images.load_gray(picture, 8)
    found = joined.take_all()
    assert {row["of"] for row in found} == {8}
    assert sorted(row["img"] for row in found) == sorted(itertools.chain(*blocks))
    for row in found:
        assert row["coded"] == (row["img"] in left)
        expected = np.frombuffer(picture, np.uint8)[None] if row["coded"] else gray
        assert np.array_equal(row["gray"], expected)


@pytest.mark.parametrize(
    ("decode", "downscale", "replicas", "batch"),
    [(0.0, 4, 2, 128), (0.3, 4, 3, 256), (1.0, 4, 3, 256), (0.0, 1, 2, 64), (0.3, 1, 3, 64)],
)
def test_a_gpu_that_decodes_has_more_replicas_and_larger_batches(
    decode: float, downscale: int, replicas: int, batch: int
) -> None:
    workers = WorkerAllocation(1, 1, True, decode=decode)
    assert masks._replicas(workers) == replicas
    assert masks._batch_size(workers, downscale) == batch
    assert masks._batch_size(ON_CPU, downscale) == 16
