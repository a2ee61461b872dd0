"""docs/library.md: what it shows runs, and does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_pair
from PIL import Image

from carvana_ray import checkpoint, rle
from carvana_ray.unet import Design, UNet

PAGE = Path(__file__).parents[1] / "docs/library.md"


@pytest.mark.parametrize("size", [(1280, 1918), (333, 501)])
def test_the_ten_lines_cut_out_a_picture(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weights = checkpoint.to_bytes(dict(UNet(base=2).state_dict()))
    manifest = checkpoint.Manifest(
        sha256=checkpoint.digest(weights),
        design=Design(base=2, norm="batch"),
        downscale=8,
        height=1280,
        width=1918,
        training={},
        run="abc",
        holdout_cars=["a"],
        val_cars=["b"],
        metrics={"val_dice": 0.5},
    )
    checkpoint.write_model(str(tmp_path / "model"), weights, manifest, [])
    picture, _ = draw_pair(1, size)
    (tmp_path / "car.jpg").write_bytes(picture)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    made: dict[str, object] = {}
    exec(code, made)
    cut = np.asarray(Image.open("car.png"))
    assert cut.shape == (*size, 4)
    mask = rle.decode(str(made["text"]), *size)
    assert np.array_equal(mask, cut[..., 3] >= 128)
