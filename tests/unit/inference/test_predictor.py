"""Masks of the predictor equal those of `images`, for any batch and any size."""

import numpy as np
import pytest
import torch

from carvana_ray import images, rle
from carvana_ray.inference import predictor
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet.network import UNet


@pytest.fixture(scope="module")
def network() -> UNet:
    """A network of random weights with steep logits around zero, so that masks have many edges."""
    torch.manual_seed(0)
    model = UNet(base=4).eval()
    with torch.no_grad():
        image = torch.from_numpy(images.standardize(grays(8)))[:, None]
        model.head.bias -= model(image).mean()
        for value in model.head.parameters():
            value *= 20 / model(image).std()
    return model


def grays(count: int, h: int = 40, w: int = 60) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (count, h // 4, w // 4), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def noise(count: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 255, (count, h, w), dtype=np.uint8)


def rle_texts(cpu_predictor: Predictor, batch: np.ndarray, height: int, width: int) -> list[str]:
    bounds = cpu_predictor.run_bounds_mixed(batch, [(height, width)] * len(batch))
    return [rle.text_from_bounds(one.tobytes()) for one in bounds]


@pytest.mark.parametrize("fill", [0, 255])
def test_an_empty_mask_has_no_run_and_a_full_mask_has_one(fill: int) -> None:
    soft_mask = torch.full((2, 5, 6), fill, dtype=torch.uint8)
    found = predictor.to_run_bounds(soft_mask, 20, 23)
    assert [bounds.tolist() for bounds in found] == [[0, 460] if fill else []] * 2


def test_run_bounds_encode_the_enlarged_mask() -> None:
    soft_mask = np.random.default_rng(1).integers(0, 256, (4, 10, 15), dtype=np.uint8)
    soft_mask[1] = 0  # an image without a run between others
    expected = [rle.encode(images.enlarge(one, 40, 58)) for one in soft_mask]
    found = predictor.to_run_bounds(torch.from_numpy(soft_mask), 40, 58)
    assert [rle.text_from_bounds(bounds.tobytes()) for bounds in found] == expected


@pytest.mark.parametrize(("grid", "tta_flip"), [((40, 60), True), ((61, 39), False)])
def test_a_mask_does_not_depend_on_the_batch(
    network: UNet, grid: tuple[int, int], tta_flip: bool
) -> None:
    """To the bit, also among images of another size, as in blocks of another order."""
    cpu_predictor = Predictor(network, torch.device("cpu"), tta_flip)
    batch, other = noise(33, *grid), noise(1, 16, 24)
    alone = [cpu_predictor.soft_masks(batch[row : row + 1])[0].numpy() for row in range(33)]
    for count in (2, 16, 33):
        parts = np.split(batch, range(count, 33, count))
        together = torch.cat([cpu_predictor.soft_masks(part) for part in parts]).numpy()
        assert np.array_equal(together, alone), count
    mixed = cpu_predictor.soft_masks_mixed([*other, *batch], [(64, 96), *[(160, 240)] * 33])
    assert np.array_equal(mixed[1:], alone)
    assert 0.05 < np.mean(np.stack(alone) > 127) < 0.95


def test_images_of_several_sizes_keep_their_order(network: UNet) -> None:
    cpu_predictor = Predictor(network, torch.device("cpu"))
    small, large = grays(2, 16, 24), grays(2, 40, 60)
    mixed = [small[0], large[0], small[1], large[1]]
    bounds = cpu_predictor.run_bounds_mixed(mixed, [(64, 96), (160, 240), (64, 96), (160, 240)])
    texts = [rle.text_from_bounds(one.tobytes()) for one in bounds]
    assert texts[0::2] == rle_texts(cpu_predictor, small, 64, 96)
    assert texts[1::2] == rle_texts(cpu_predictor, large, 160, 240)


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_mask_of_a_turned_image_is_that_of_its_stored_pixels(network: UNet, turn: int) -> None:
    """Among others that are not turned, and for blocks that the right and lower border cut."""
    cpu_predictor = Predictor(network, torch.device("cpu"))
    upright = grays(3)
    (mask,) = rle_texts(cpu_predictor, upright[1:2], 160, 240)
    stored = images.to_stored(rle.decode(mask, 160, 240), turn)
    sizes, turns = [(160, 240), stored.shape, (158, 238)], [1, turn, 1]
    found = cpu_predictor.run_bounds_mixed(list(upright), sizes, turns)
    texts = [rle.text_from_bounds(one.tobytes()) for one in found]
    assert texts[1] == rle.encode(stored)
    assert texts[0] == rle_texts(cpu_predictor, upright[:1], 160, 240)[0]
    assert texts[2] == rle_texts(cpu_predictor, upright[2:], 158, 238)[0]
    soft_masks = cpu_predictor.soft_masks_mixed(list(upright), sizes, turns)
    assert rle.encode(images.enlarge(soft_masks[1], *stored.shape)) == texts[1]


@pytest.mark.parametrize("size", [(77, 115), (533, 800), (1000, 1500), (20, 30), (2, 3)])
def test_the_mask_of_an_image_at_another_scale_is_its_soft_mask_enlarged(
    network: UNet, size: tuple[int, int]
) -> None:
    cpu_predictor = Predictor(network, torch.device("cpu"))
    batch = grays(2)
    soft_masks = cpu_predictor.soft_masks_mixed(batch, [(160, 240)] * 2)
    (mixed, plain) = cpu_predictor.run_bounds_mixed(batch, [size, (160, 240)])
    text = rle.text_from_bounds(mixed.tobytes())
    assert text == rle.encode(images.enlarge(soft_masks[0], *size))
    expected = rle.encode(images.enlarge(soft_masks[1], 160, 240))
    assert rle.text_from_bounds(plain.tobytes()) == expected


def test_images_of_one_size_may_come_as_an_object_array(network: UNet) -> None:
    """Ray Data gives them so when a batch is cut out of a block of several sizes."""
    cpu_predictor = Predictor(network, torch.device("cpu"))
    batch = grays(3)
    objects = np.empty(3, dtype=object)
    objects[:] = list(batch)
    found = cpu_predictor.run_bounds_mixed(objects, [(160, 240)] * 3)
    expected = cpu_predictor.run_bounds_mixed(batch, [(160, 240)] * 3)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    soft_masks = cpu_predictor.soft_masks_mixed(objects, [(160, 240)] * 3)
    assert np.array_equal(np.stack(soft_masks), cpu_predictor.soft_masks(batch).numpy())


def test_soft_masks_of_several_sizes_keep_their_order_and_give_the_masks(network: UNet) -> None:
    cpu_predictor = Predictor(network, torch.device("cpu"))
    small, large = grays(2, 16, 24), grays(2, 40, 60)
    mixed = [small[0], large[0], small[1], large[1]]
    sizes = [(64, 96), (160, 240), (64, 96), (160, 240)]
    soft_masks = cpu_predictor.soft_masks_mixed(mixed, sizes)
    bounds = cpu_predictor.run_bounds_mixed(mixed, sizes)
    for soft_mask, one, size in zip(soft_masks, bounds, sizes, strict=True):
        mask = rle.decode(rle.text_from_bounds(one.tobytes()), *size)
        assert np.array_equal(images.enlarge(soft_mask, *size), mask)


def test_with_the_test_time_flip_a_soft_mask_is_the_mean_of_two(network: UNet) -> None:
    batch = grays(3)
    plain = Predictor(network, torch.device("cpu"))
    both = Predictor(network, torch.device("cpu"), tta_flip=True).soft_masks(batch).int()
    one = plain.soft_masks(batch).int()
    other = plain.soft_masks(np.ascontiguousarray(batch[..., ::-1])).flip(-1).int()
    assert (2 * both - one - other).abs().max() <= 2, "each is rounded"
    assert (one - other).abs().max() > 20, "otherwise this test shows nothing"
    flipped = Predictor(network, torch.device("cpu"), tta_flip=True).soft_masks(
        np.ascontiguousarray(batch[..., ::-1])
    )
    assert (flipped.flip(-1).int() - both).abs().max() <= 1


def test_a_network_that_folds_sees_more_images_at_a_time() -> None:
    assert predictor.max_batch(320, 480) == 64
    assert predictor.max_batch(1280, 1918) == 4
    assert predictor.max_batch(1280, 1918, fold=4) == 16
    assert predictor.max_batch(10_000, 10_000) == 1
    assert predictor.max_batch(320, 480, 1, on_gpu=False) == 1


def test_full_size_masks_are_bounded_by_their_pixels() -> None:
    assert predictor.full_size_batch(1280, 1918) == 16
    assert predictor.full_size_batch(3000, 4000) == 3
    assert predictor.full_size_batch(10_000, 10_000) == 1


def test_a_cpu_holds_one_image_at_a_time(network: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen images of 12 megapixels would take 6 GB."""
    cpu_predictor, batch = Predictor(network, torch.device("cpu")), grays(3)
    seen: dict[str, list[int]] = {"network": [], "masks": []}
    forward, boundaries = cpu_predictor.logits, predictor.run_boundaries

    def logits(gray: torch.Tensor) -> torch.Tensor:
        seen["network"].append(len(gray))
        return forward(gray)

    def run_boundaries(soft_masks: torch.Tensor, height: int, width: int) -> torch.Tensor:
        seen["masks"].append(len(soft_masks))
        return boundaries(soft_masks, height, width)

    monkeypatch.setattr(cpu_predictor, "logits", logits)
    monkeypatch.setattr(predictor, "run_boundaries", run_boundaries)
    assert len(rle_texts(cpu_predictor, batch, 160, 240)) == 3
    assert seen == {"network": [1, 1, 1], "masks": [1, 1, 1]}


@pytest.mark.parametrize("tta_flip", [False, True])
def test_non_finite_images_are_computed_again_in_float32(network: UNet, tta_flip: bool) -> None:
    cpu_predictor = Predictor(network, torch.device("cpu"), tta_flip)
    batch = grays(3)
    plain = cpu_predictor.soft_masks(batch)
    with torch.no_grad():
        for value in cpu_predictor.model.head.parameters():
            value.fill_(float("inf"))  # as if a number had been too large for its format
    assert (cpu_predictor.soft_masks(batch).int() - plain.int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_and_cpu_make_the_same_mask_of_a_soft_mask() -> None:
    soft_mask = np.random.default_rng(2).integers(0, 256, (8, 320, 480), dtype=np.uint8)
    on_gpu = predictor.to_run_bounds(torch.from_numpy(soft_mask).cuda(), 1280, 1918)
    on_cpu = predictor.to_run_bounds(torch.from_numpy(soft_mask), 1280, 1918)
    assert [bounds.tobytes() for bounds in on_gpu] == [bounds.tobytes() for bounds in on_cpu]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_half_precision_on_a_gpu_gives_nearly_the_masks_of_float32(network: UNet) -> None:
    batch = grays(8, 320, 480)
    halves = Predictor(network, torch.device("cuda")).soft_masks(batch).cpu().int()
    exact = Predictor(network.cpu(), torch.device("cpu")).soft_masks(batch).int()
    assert ((halves > 127) != (exact > 127)).float().mean() < 0.005


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_overflow_of_half_precision_on_a_gpu_is_noticed() -> None:
    torch.manual_seed(0)
    model = UNet(base=4).eval()
    with torch.no_grad():
        model.down[0][0].weight *= 1e6  # float32 holds it
    batch = grays(8, 320, 480)
    found = Predictor(model, torch.device("cuda")).soft_masks(batch).cpu().int()
    exact = Predictor(model.cpu(), torch.device("cpu")).soft_masks(batch).int()
    assert ((found > 127) != (exact > 127)).float().mean() < 0.005
