"""Soft masks of a few images, predicted in this process."""

from pathlib import Path

import numpy as np
from support.pairs import draw_pair
from support.watched import make_model

from carvana_ray import storage
from carvana_ray.checkpoints.model import ModelRef, load_manifest
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest.read_images import block_row, read_images
from carvana_ray.stages.predict.mask_predictor import SoftMaskPredictor, read_options
from carvana_ray.stages.predict.soft_masks import predict_soft_masks


def test_they_are_those_of_the_chain_and_images_that_became_bad_are_left_out(
    tmp_path: Path,
) -> None:
    sizes = (320, 480), (320, 480), (160, 240)
    files = [draw_pair(number, size)[0] for number, size in enumerate(sizes)]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    make_model(tmp_path / "model", files[:2])
    uri, folder = str(tmp_path / "model"), str(tmp_path)
    manifest = load_manifest(uri)
    model = ModelRef(uri, manifest.sha256)
    entries = storage.list_files(folder, (".jpg",))
    workers = WorkerAllocation(1, 1, False)
    rows = {key: [value] for key, value in block_row("", entries).items()}
    options = read_options(folder, manifest, None, workers)
    expected = SoftMaskPredictor(model, workers)(read_images(rows, options))["soft_mask"]
    found = predict_soft_masks(folder, entries, model, manifest)
    assert list(found) == ["0.jpg", "1.jpg", "2.jpg"]
    for mask, other in zip(found.values(), expected, strict=True):
        assert mask.shape == other.shape
        assert np.abs(mask.astype(int) - other).max() <= 1, "sums in another order"
    (tmp_path / "1.jpg").unlink()
    assert list(predict_soft_masks(folder, entries, model, manifest)) == ["0.jpg", "2.jpg"]
    (tmp_path / "model" / "model.pt").unlink()
    assert predict_soft_masks(folder, entries, model, manifest) == {}
