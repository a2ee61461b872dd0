"""The middle of the prediction chain: gray levels or JPEG files in, masks out.

`--decode gpu` is tested with Pillow in the place of nvJPEG.
"""

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.blocks import batch_of, listed
from support.jpegs import decode_with_pillow, jpeg
from support.pairs import draw_pair
from support.watched import make_model

from carvana_ray import images, rle
from carvana_ray.checkpoints.model import ModelRef, load_manifest
from carvana_ray.data.corrections import load_corrections
from carvana_ray.data.quarantine import OK
from carvana_ray.inference import nvjpeg
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.datasets import from_blocks
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict.mask_predictor import MaskPredictor, SoftMaskPredictor

SIZE = (320, 480)
NAMES = [f"{number}.jpg" for number in range(8)]
ON_CPU, DECODING = WorkerAllocation(1, 1, False), WorkerAllocation(1, 1, False, decode_on_gpu=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with seven images, some of them bad, one missing, and a model."""
    good = [draw_pair(number, SIZE)[0] for number in range(3)]
    damaged = bytearray(good[1])
    table = damaged.find(b"\xff\xc4") + 5  # of the code's lengths; only a decoder reads it
    damaged[table : table + 16] = b"\xff" * 16
    files = {
        "0.jpg": good[0],
        "1.jpg": good[1],
        "2.jpg": draw_pair(5, (300, 400))[0],
        "3.jpg": good[2][:900],
        "4.jpg": b"text",
        "5.jpg": bytes(damaged),
        "7.jpg": jpeg(1, *SIZE, progressive=True),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    make_model(tmp_path / "model", good)
    return tmp_path


def options(folder: Path, keep_encoded: bool, downscale: int = 8) -> ReadOptions:
    return ReadOptions(str(folder), downscale, None, SIZE, keep_encoded)


def model_in(folder: Path) -> ModelRef:
    uri = str(folder / "model")
    return ModelRef(uri, load_manifest(uri).sha256)


def read(folder: Path, keep_encoded: bool) -> dict[str, Any]:
    row = block_row("x", listed(folder, NAMES))
    return read_images(batch_of(row), options(folder, keep_encoded))


def first_words(batch: dict[str, Any]) -> list[str]:
    return [str(status).split(":")[0] for status in batch["status"]]


def test_files_that_nvjpeg_can_decode_stay_encoded(folder: Path) -> None:
    kept, plain = read(folder, keep_encoded=True), read(folder, keep_encoded=False)
    assert set(kept) - set(plain) == {"encoded"}
    is_encoded = [bool(file) for file in kept["encoded"]]
    assert is_encoded == [True, True, True, False, False, True, False, False]
    assert kept["encoded"][1] == (folder / "1.jpg").read_bytes()
    assert not kept["image"][4].any()
    for row, encoded in enumerate(is_encoded):
        assert kept["image"][row].shape == ((0, 0) if encoded else plain["image"][row].shape)
    assert np.array_equal(kept["image"][7], plain["image"][7]), "progressive: decoded by the reader"
    assert plain["image"][4].shape == (40, 60)
    bad = ["truncated", "not-an-image"]
    assert first_words(kept) == ["ok"] * 3 + bad + ["ok", "missing", "ok"], "5: pixels unread"
    assert first_words(plain)[:5] == ["ok"] * 3 + bad
    assert first_words(plain)[6:] == ["missing", "ok"]


def test_a_file_too_large_to_travel_is_decoded_by_the_reader(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [(folder / name).stat().st_size for name in NAMES[:3]]
    monkeypatch.setattr(reading, "MAX_ENCODED_BYTES", sorted(lengths)[1])
    kept, plain = read(folder, keep_encoded=True), read(folder, keep_encoded=False)
    assert [bool(file) for file in kept["encoded"][:3]] == [n < max(lengths) for n in lengths]
    largest = lengths.index(max(lengths))
    assert np.array_equal(kept["image"][largest], plain["image"][largest])


@pytest.mark.ray
@pytest.mark.parametrize("names", [NAMES, NAMES[:3]])
def test_ray_data_does_not_change_encoded_files(
    folder: Path, ray_session: None, names: list[str]
) -> None:
    row = block_row("x", listed(folder, names))
    data = from_blocks([row]).map_batches(
        read_images, batch_size=None, fn_kwargs={"options": options(folder, keep_encoded=True)}
    )
    (batch,) = data.iter_batches(batch_size=None)
    expected = read_images(batch_of(row), options(folder, keep_encoded=True))
    for image, other in zip(batch["image"], expected["image"], strict=True):
        assert np.array_equal(image, other)
    assert batch["encoded"].tolist() == expected["encoded"].tolist()


@pytest.mark.parametrize("kind", [MaskPredictor, SoftMaskPredictor])
def test_masks_of_encoded_files_are_those_of_decoded_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[MaskPredictor]
) -> None:
    monkeypatch.setattr(nvjpeg, "Decoder", lambda device: decode_with_pillow)
    plain = kind(model_in(folder), ON_CPU)(read(folder, keep_encoded=False))
    gpu = kind(model_in(folder), DECODING)(read(folder, keep_encoded=True))
    assert set(gpu) == set(plain)
    assert gpu["status"].tolist() == plain["status"].tolist(), "5.jpg is bad for both"
    assert str(gpu["status"][5]).startswith("truncated")
    sizes = list(zip(gpu["height"], gpu["width"], strict=True))
    for row in (0, 1, 2, 7):
        assert gpu["status"][row] == OK
        if kind is SoftMaskPredictor:
            difference = gpu["soft_mask"][row].astype(int) - plain["soft_mask"][row]
            assert np.abs(difference).mean() < 8, "steep edges, and other gray levels"
            continue
        one, other = (
            rle.decode(rle.text_from_bounds(masks["run_bounds"][row]), *sizes[row])
            for masks in (gpu, plain)
        )
        assert other.any() or row == 7
        assert (one != other).mean() < 0.02
    if kind is MaskPredictor:
        assert gpu["run_bounds"][3:7].tolist() == [b""] * 4


def test_threads_may_share_a_predictor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "Decoder", lambda device: decode_with_pillow)
    alone = MaskPredictor(model_in(folder), DECODING)(read(folder, keep_encoded=True))
    shared = MaskPredictor(model_in(folder), DECODING)
    batches = [read(folder, keep_encoded=True) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for masks in threads.map(shared, batches):
            assert masks["status"].tolist() == alone["status"].tolist()
            assert masks["run_bounds"].tolist() == alone["run_bounds"].tolist()


def test_a_bad_image_has_an_empty_mask_whatever_the_network_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, bounds = MaskPredictor(model_in(folder), ON_CPU), np.array([0, 9], np.int32)
    monkeypatch.setattr(
        predictor._predictor, "run_bounds_mixed", lambda _, sizes, turns: [bounds] * len(sizes)
    )
    masks = predictor(read(folder, keep_encoded=False))
    good = [status == OK for status in masks["status"]]
    assert good == [True, True, True, False, False, False, False, True]
    assert masks["run_bounds"].tolist() == [bounds.tobytes() if ok else b"" for ok in good]


@pytest.mark.parametrize("kind", [MaskPredictor, SoftMaskPredictor])
def test_a_replica_refuses_a_model_that_was_exchanged(
    folder: Path, kind: type[MaskPredictor]
) -> None:
    """It must not raise: Ray Data would wait half an hour for a replica that does not start."""
    checked, original = model_in(folder), folder / "model"
    original.rename(folder / "original")
    make_model(original, [draw_pair(9, SIZE)[0]])
    replica = kind(checked, ON_CPU)
    masks = replica(read(folder, keep_encoded=False))
    (status,) = set(masks["status"])
    assert status == f"unreachable: --model {original}: another model was written there while " + (
        "this job ran; run the command again"
    )
    assert not any(masks["run_bounds" if kind is MaskPredictor else "soft_mask"].ravel())
    original.rename(folder / "other")
    (status,) = set(replica(read(folder, keep_encoded=False))["status"])
    assert status.startswith("unreachable: --model")
    (folder / "original").rename(original)
    assert OK in replica(read(folder, keep_encoded=False))["status"], "it loads the model late"


@pytest.mark.ray
def test_encoded_and_decoded_blocks_form_one_batch(folder: Path, ray_session: None) -> None:
    """Ray Data joins small blocks into a batch whose images differ in shape."""
    files = {"encoded": jpeg(0, *SIZE), "decoded": jpeg(0, *SIZE, progressive=True)}
    kinds = ["decoded"] * 2, ["encoded"] * 2, ["encoded"], ["decoded"], ["decoded", "encoded"]
    names = [
        [f"{block}-{n}-{kind}.jpg" for n, kind in enumerate(k)] for block, k in enumerate(kinds)
    ]
    for name in itertools.chain(*names):
        (folder / name).write_bytes(files[name.split("-")[2].removesuffix(".jpg")])
    rows = [block_row(str(n), listed(folder, block)) for n, block in enumerate(names)]
    data = from_blocks(rows).map_batches(
        read_images, batch_size=None, fn_kwargs={"options": options(folder, keep_encoded=True)}
    )
    joined = data.map_batches(lambda batch: {**batch, "of": [len(batch["img"])] * 8}, batch_size=8)
    read_rows = joined.take_all()
    assert {row["of"] for row in read_rows} == {8}
    assert sorted(row["img"] for row in read_rows) == sorted(itertools.chain(*names))
    gray = images.load_gray(files["decoded"], 8)
    for row in read_rows:
        encoded = row["img"].endswith("-encoded.jpg")
        assert row["encoded"] == (files["encoded"] if encoded else b"")
        assert np.array_equal(row["image"], np.empty((0, 0)) if encoded else gray)


@pytest.mark.parametrize("decode", [False, True])
def test_a_corrected_image_keeps_the_mask_of_its_correction(
    folder: Path, monkeypatch: pytest.MonkeyPatch, decode: bool
) -> None:
    monkeypatch.setattr(nvjpeg, "Decoder", lambda device: decode_with_pillow)
    (folder / "fixed").mkdir()
    mask = np.random.default_rng(0).random((300, 400)) < 0.5
    Image.fromarray(mask.view(np.uint8) * np.uint8(255)).save(folder / "fixed/2.png")
    entries = listed(folder, NAMES)
    found = load_corrections(str(folder / "fixed"), NAMES)
    row = block_row("x", [found.mark(entry) for entry in entries])
    corrected = dataclasses.replace(options(folder, decode), corrections=found.uris)
    workers = DECODING if decode else ON_CPU
    plain = MaskPredictor(model_in(folder), workers)(read(folder, decode))
    for kind in (MaskPredictor, SoftMaskPredictor):
        masks = kind(model_in(folder), workers)(read_images(batch_of(row), corrected))
        assert first_words(masks)[:4] == ["ok", "ok", "corrected", "truncated"]
        assert masks["crc32"].tolist() == plain["crc32"].tolist()
        if kind is SoftMaskPredictor:
            bounds = masks["correction"]
            assert [bool(one) for one in bounds] == [number == 2 for number in range(8)]
        else:
            bounds = masks["run_bounds"]
            assert "correction" not in masks
            others = [number for number in range(8) if number != 2]
            assert [bounds[number] for number in others] == [
                plain["run_bounds"][number] for number in others
            ]
        assert rle.text_from_bounds(bounds[2]) == rle.encode(mask)
