"""The example of docs/library.md runs and gives matching cut-out and mask."""

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
def test_the_example_cuts_out_an_image(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    write_model(tmp_path / "model", UNet(base=2))
    image, _ = draw_pair(1, size)
    (tmp_path / "car.jpg").write_bytes(image)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    variables: dict[str, object] = {}
    exec(code, variables)
    cut = np.asarray(Image.open("car.png"))
    assert cut.shape == (*size, 4)
    mask = rle.decode(str(variables["text"]), *size)
    assert np.array_equal(mask, cut[..., 3] >= 128)
