"""The ONNX graph computes what prediction computes; files are valid and describe themselves."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.export_models import export_manifest, exported_bytes
from support.pairs import draw_pair

from carvana_ray import images
from carvana_ray.checkpoints.model import sha256
from carvana_ray.export import onnx
from carvana_ray.export.verify import ExportedModel

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SIZES = [(128, 256), (301, 411), (97, 64), (33, 18), (5, 3), (1, 1)]


@pytest.mark.parametrize("downscale", images.DOWNSCALES)
@pytest.mark.parametrize("size", [*SIZES, (40, 61), (7, 8), (63, 62), (24, 35), (19, 44)])
def test_block_means_equal_those_of_pillow(size: tuple[int, int], downscale: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, *size, 3), dtype=np.uint8)
    pixels[10:] &= 1  # few levels: many blocks whose mean lies halfway between two
    expected = [images.to_gray(Image.fromarray(image), downscale) for image in pixels]
    graph = onnx.MaskGraph(torch.nn.Identity(), downscale, "picture")
    means = graph.block_means(torch.from_numpy(pixels))
    np.testing.assert_array_equal(means.numpy(), np.stack(expected))


def test_a_file_has_metadata_and_no_paths_of_this_machine() -> None:
    data = exported_bytes("batch", 8, "picture")
    metadata = ExportedModel(data).metadata
    assert metadata == onnx.metadata(export_manifest(8, "batch"), "picture")
    assert metadata["carvana_ray.model_sha256"] == sha256(b"")
    assert metadata["carvana_ray.downscale"] == "8"
    assert json.loads(metadata["carvana_ray.network"])["norm"] == "batch"
    assert all(isinstance(text, str) and text for text in metadata.values())
    assert b".py" not in data
    assert str(Path(__file__).parents[3]).encode() not in data


def test_the_trace_size_needs_padding_on_every_grid() -> None:
    for downscale in images.DOWNSCALES:
        assert all(side % 2 for side in images.grid_size(*onnx.TRACE_SIZE, downscale))


def test_files_pass_the_onnx_checker() -> None:
    from onnx import checker

    checker.check_model(exported_bytes("batch", 8, "picture"), full_check=True)
    checker.check_model(exported_bytes("batch", 4, "gray"), full_check=True)


def test_the_example_of_the_documentation_cuts_out_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[3] / "docs/export.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(exported_bytes("batch", 8, "picture"))
    Path("car.jpg").write_bytes(draw_pair(1, (333, 501))[0])
    variables: dict[str, NDArray[np.uint8]] = {}
    exec(code, variables)
    alpha = np.asarray(Image.open("car.png"))[..., 3]
    np.testing.assert_array_equal(alpha, variables["alpha"][0])
    np.testing.assert_array_equal(alpha >= 128, variables["mask"][0] == 255)
