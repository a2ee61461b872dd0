"""docs/library.md: what it shows runs, and does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.models import write_model
from support.pairs import draw_pair

from carvana_ray import rle
from carvana_ray.unet.network import UNet

PAGE = Path(__file__).parents[2] / "docs/library.md"


@pytest.mark.parametrize("size", [(1280, 1918), (333, 501)])
def test_the_ten_lines_cut_out_a_picture(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    write_model(tmp_path / "model", UNet(base=2))
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
