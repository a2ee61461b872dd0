"""An exported model gives the masks of torch in onnxruntime, or is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from support.export_models import (
    export_manifest,
    exported_bytes,
    random_images,
    trained_network,
)
from support.pairs import draw_pair

from carvana_ray import images
from carvana_ray.cutouts.alpha import soft_alpha
from carvana_ray.errors import IncompleteError
from carvana_ray.export import onnx, verify
from carvana_ray.export.verify import ExportedModel
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet.network import UNetConfig

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SIZES = [(128, 256), (301, 411), (97, 64), (33, 18), (5, 3), (1, 1)]


@pytest.fixture(scope="module", params=[("batch", 8), ("none", 4)], ids=str)
def exported(request: pytest.FixtureRequest) -> tuple[ExportedModel, Predictor, int]:
    norm, downscale = request.param
    model = ExportedModel(exported_bytes(norm, downscale, "picture"))
    return model, Predictor(trained_network(norm), torch.device("cpu")), downscale


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_masks_and_alphas_match_torch_for_any_size_and_batch(
    exported: tuple[ExportedModel, Predictor, int], size: tuple[int, int], count: int
) -> None:
    model, predictor, downscale = exported
    pixels = random_images(count, *size)
    masks, alphas = model.masks(pixels), model.alphas(pixels)
    assert masks.shape == alphas.shape == (count, *size)
    assert alphas.dtype == np.uint8
    grays = [images.to_gray(Image.fromarray(image), downscale) for image in pixels]
    soft_masks = predictor.soft_masks(np.stack(grays)).numpy()
    expected = images.enlarge(soft_masks, *size)
    assert np.count_nonzero(masks != expected) <= verify.TOLERATED_FRACTION * masks.size
    soft = np.stack([soft_alpha(soft_mask, *size) for soft_mask in soft_masks])
    # One level of the soft mask is two levels of alpha.
    assert np.abs(alphas.astype(int) - soft).max() <= 2
    np.testing.assert_array_equal(masks, alphas >= 128)


def test_the_networks_of_these_tests_find_car_and_background(
    exported: tuple[ExportedModel, Predictor, int],
) -> None:
    car_fraction = exported[0].masks(random_images(3, 301, 411)).mean()
    assert 0.05 < car_fraction < 0.95


def test_the_order_of_channels_does_not_matter(
    exported: tuple[ExportedModel, Predictor, int],
) -> None:
    pixels = random_images(1, 301, 411)
    reversed_channels = np.ascontiguousarray(pixels[..., ::-1])
    np.testing.assert_array_equal(exported[0].masks(pixels), exported[0].masks(reversed_channels))


@pytest.mark.parametrize("size", [(1280, 1918), (333, 501)])
def test_gray_input_of_a_jpeg_gives_the_masks_of_predict(size: tuple[int, int]) -> None:
    model = ExportedModel(exported_bytes("batch", 4, "gray"))
    predictor = Predictor(trained_network("batch"), torch.device("cpu"))
    jpeg, _ = draw_pair(1, size)
    gray = np.array(images.load_gray(jpeg, 4)[None])
    expected = images.enlarge(predictor.soft_masks(gray).numpy(), *size)
    masks = model.masks(gray)[:, : size[0], : size[1]]
    assert np.count_nonzero(masks != expected) <= verify.TOLERATED_FRACTION * masks.size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fold", "encoder", "base"), [(2, "none", 2), (2, "lite0", 8), (1, "lite0", 8)]
)
def test_a_network_with_pixel_unshuffle_and_mirroring_matches_torch(
    fold: int, encoder: str, base: int
) -> None:
    network = trained_network("batch", fold, encoder, base)
    design = UNetConfig(base=base, norm="batch", fold=fold, encoder=encoder)
    downscale = 4 // fold**2
    plain = export_manifest(downscale, "batch")
    manifest = dataclasses.replace(plain, unet=design, tta_flip=True)
    model = ExportedModel(onnx.to_onnx(network, manifest, "picture"))
    assert model.metadata["carvana_ray.mirror"] == "true"
    predictor = Predictor(network, torch.device("cpu"), tta_flip=True)
    for h, w in ((64, 96), (65, 97), (64, 97)):
        size = h * downscale, w * downscale
        pixels = random_images(2, *size)
        grays = np.stack([images.to_gray(Image.fromarray(image), downscale) for image in pixels])
        expected = images.enlarge(predictor.soft_masks(grays).numpy(), *size)
        assert 0.02 < expected.mean() < 0.98
        masks = model.masks(pixels)
        assert np.count_nonzero(masks != expected) <= verify.TOLERATED_FRACTION * masks.size


def test_the_file_of_another_network_is_refused() -> None:
    data, manifest = exported_bytes("batch", 8, "picture"), export_manifest(8, "batch")
    with pytest.raises(IncompleteError, match="no file was written"):
        verify.verify(data, trained_network("none"), manifest, [draw_pair(1, (301, 411))[0]])


def test_an_exported_file_passes_verification_with_the_dice_of_predict() -> None:
    data, manifest = exported_bytes("batch", 8, "picture"), export_manifest(8, "batch")
    files = [draw_pair(seed, (301, 411))[0] for seed in range(2)]
    result = verify.verify(data, trained_network("batch"), manifest, files)
    assert list(result) == ["images", "pixels_differ", "dice"]
    assert result["images"] == 2
    assert result["pixels_differ"] <= 2 * 3 * verify.TOLERATED_FRACTION * 301 * 411
    assert 0.9 < result["dice"] <= 1
