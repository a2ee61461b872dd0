"""Masks: the same as `images` makes on the CPU, alone or in company, of any size."""

import numpy as np
import pytest
import torch

from carvana_ray import images, rle
from carvana_ray.inference import predictor
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet.network import UNet


@pytest.fixture(scope="module")
def network() -> UNet:
    """A network of random weights whose masks have edges all over: logits steep, about zero."""
    torch.manual_seed(0)
    model = UNet(base=4).eval()
    with torch.no_grad():
        picture = torch.from_numpy(images.standardize(grays(8)))[:, None]
        model.head.bias -= model(picture).mean()
        for value in model.head.parameters():
            value *= 20 / model(picture).std()
    return model


def grays(count: int, h: int = 40, w: int = 60) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (count, h // 4, w // 4), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("fill", [0, 255])
def test_an_empty_and_a_full_mask_have_their_runs(fill: int) -> None:
    share = torch.full((2, 5, 6), fill, dtype=torch.uint8)
    found = predictor.to_run_bounds(share, 20, 23)
    assert [ends.tolist() for ends in found] == [[0, 460] if fill else []] * 2


def test_runs_on_a_device_are_the_encoded_mask() -> None:
    share = np.random.default_rng(1).integers(0, 256, (4, 10, 15), dtype=np.uint8)
    share[1] = 0  # one without any run between others
    expected = [rle.encode(images.enlarge(one, 40, 58)) for one in share]
    found = predictor.to_run_bounds(torch.from_numpy(share), 40, 58)
    assert [rle.text_from_bounds(ends.tobytes()) for ends in found] == expected


def test_a_picture_alone_or_among_others_has_the_same_mask(network: UNet) -> None:
    ask = Predictor(network, torch.device("cpu"))
    pictures = grays(65)
    together = ask.rle_texts(pictures, 160, 240)
    differing = 0
    for place in (0, 31, 64):
        (alone,) = ask.rle_texts(pictures[place : place + 1], 160, 240)
        masks = [rle.decode(text, 160, 240) for text in (alone, together[place])]
        assert masks[0].any()
        assert not masks[0].all()
        differing += int((masks[0] != masks[1]).sum())
    assert differing <= 6, "more than a handful of border pixels"


def test_pictures_of_several_sizes_keep_their_order(network: UNet) -> None:
    ask = Predictor(network, torch.device("cpu"))
    small, large = grays(2, 16, 24), grays(2, 40, 60)
    mixed = [small[0], large[0], small[1], large[1]]
    ends = ask.run_bounds_mixed(mixed, [(64, 96), (160, 240), (64, 96), (160, 240)])
    texts = [rle.text_from_bounds(one.tobytes()) for one in ends]
    assert texts[0::2] == ask.rle_texts(small, 64, 96)
    assert texts[1::2] == ask.rle_texts(large, 160, 240)


def test_pictures_of_one_size_may_come_as_objects(network: UNet) -> None:
    """As Ray Data gives them where a batch is cut out of a block of several sizes."""
    ask = Predictor(network, torch.device("cpu"))
    pictures = grays(3)
    objects = np.empty(3, dtype=object)
    objects[:] = list(pictures)
    found = ask.run_bounds_mixed(objects, [(160, 240)] * 3)
    expected = ask.run_bounds(pictures, 160, 240)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    shares = ask.soft_masks_mixed(objects, [(160, 240)] * 3)
    assert np.array_equal(np.stack(shares), ask.soft_masks(pictures).numpy())


def test_shares_of_several_sizes_keep_their_order_and_make_the_masks(network: UNet) -> None:
    ask = Predictor(network, torch.device("cpu"))
    small, large = grays(2, 16, 24), grays(2, 40, 60)
    mixed = [small[0], large[0], small[1], large[1]]
    sizes = [(64, 96), (160, 240), (64, 96), (160, 240)]
    shares = ask.soft_masks_mixed(mixed, sizes)
    ends = ask.run_bounds_mixed(mixed, sizes)
    for share, one, size in zip(shares, ends, sizes, strict=True):
        mask = rle.decode(rle.text_from_bounds(one.tobytes()), *size)
        assert np.array_equal(images.enlarge(share, *size), mask)


def test_with_its_mirror_image_a_share_is_the_mean_of_two(network: UNet) -> None:
    pictures = grays(3)
    plain = Predictor(network, torch.device("cpu"))
    both = Predictor(network, torch.device("cpu"), tta_flip=True).soft_masks(pictures).int()
    one = plain.soft_masks(pictures).int()
    other = plain.soft_masks(np.ascontiguousarray(pictures[..., ::-1])).flip(-1).int()
    assert (2 * both - one - other).abs().max() <= 2, "each is rounded"
    assert (one - other).abs().max() > 20, "or nothing was to be seen here"
    mirrored = Predictor(network, torch.device("cpu"), tta_flip=True).soft_masks(
        np.ascontiguousarray(pictures[..., ::-1])
    )
    assert (mirrored.flip(-1).int() - both).abs().max() <= 1


def test_a_folded_network_sees_as_many_pictures_at_a_time_as_memory_has_room_for() -> None:
    assert predictor.max_batch(320, 480) == 64
    assert predictor.max_batch(1280, 1918) == 4
    assert predictor.max_batch(1280, 1918, fold=4) == 16
    assert predictor.max_batch(10_000, 10_000) == 1


def test_what_half_precision_cannot_hold_is_asked_again_in_full(network: UNet) -> None:
    ask = Predictor(network, torch.device("cpu"))
    pictures = grays(3)
    plain = ask.soft_masks(pictures)
    with torch.no_grad():
        for value in ask.model.head.parameters():
            value.fill_(float("inf"))  # as if a number had been too large for its format
    assert (ask.soft_masks(pictures).int() - plain.int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_makes_the_mask_of_the_cpu_of_the_same_share() -> None:
    share = np.random.default_rng(2).integers(0, 256, (8, 320, 480), dtype=np.uint8)
    on_gpu = predictor.to_run_bounds(torch.from_numpy(share).cuda(), 1280, 1918)
    on_cpu = predictor.to_run_bounds(torch.from_numpy(share), 1280, 1918)
    assert [ends.tobytes() for ends in on_gpu] == [ends.tobytes() for ends in on_cpu]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_in_half_precision_makes_the_masks_of_float32(network: UNet) -> None:
    pictures = grays(8, 320, 480)
    halves = Predictor(network, torch.device("cuda")).soft_masks(pictures).cpu().int()
    exact = Predictor(network.cpu(), torch.device("cpu")).soft_masks(pictures).int()
    assert ((halves > 127) != (exact > 127)).float().mean() < 0.005


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_too_large_for_half_precision_on_a_gpu_is_seen() -> None:
    torch.manual_seed(0)
    model = UNet(base=4).eval()
    with torch.no_grad():
        model.down[0][0].weight *= 1e6  # float32 holds it
    pictures = grays(8, 320, 480)
    found = Predictor(model, torch.device("cuda")).soft_masks(pictures).cpu().int()
    exact = Predictor(model.cpu(), torch.device("cpu")).soft_masks(pictures).int()
    assert ((found > 127) != (exact > 127)).float().mean() < 0.005
