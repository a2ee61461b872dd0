"""JPEGs that are decoded on the GPU, with Pillow in the place of nvJPEG where there is none."""

import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.jpegs import decode_with_pillow, jpeg

from carvana_ray import images
from carvana_ray.images import validate
from carvana_ray.inference import nvjpeg, predictor
from carvana_ray.inference.nvjpeg import Decode, EncodedImages
from carvana_ray.unet.network import UNet

CPU = torch.device("cpu")
NO_GRAY = [np.empty((0, 0), np.uint8)]
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def encoded(files: Sequence[bytes], size: tuple[int, int] = (61, 90)) -> EncodedImages:
    """Return images of one size that all come as files."""
    count = len(files)
    return EncodedImages(files, NO_GRAY * count, [size] * count, 4, CPU, decode_with_pillow)


def test_files_and_gray_levels_come_in_the_requested_order() -> None:
    files = [jpeg(seed) for seed in range(4)]
    grays = [images.load_gray(file) for file in files]
    mixed = EncodedImages(
        [files[0], b"", files[2], b""],
        [*NO_GRAY, grays[1], *NO_GRAY, grays[3]],
        [(61, 90)] * 4,
        4,
        CPU,
        decode_with_pillow,
    )
    assert (len(mixed), mixed.grid(2)) == (4, (16, 23))
    rows = [2, 3, 0, 1]
    stacked = mixed.stack(rows).numpy()
    for gray, row in zip(stacked, rows, strict=True):
        assert np.abs(gray.astype(int) - grays[row]).mean() < 1
    assert np.array_equal(stacked[[1, 3]], [grays[3], grays[1]])
    assert np.array_equal(mixed.stack([1, 3]), [grays[1], grays[3]])
    assert not mixed.errors


def test_a_file_that_nvjpeg_rejects_does_not_change_its_neighbors() -> None:
    """They are still decoded by nvJPEG: other pixels would give another mask."""
    files = [jpeg(0), jpeg(1)[:300] + b"\xff\xd9", b"\xff\xd8\xff" + bytes(90), jpeg(3)]
    batch = encoded(files)
    stacked = batch.stack([0, 1, 2, 3]).numpy()
    for row in (0, 3):
        alone = encoded([files[row]]).stack([0])[0].numpy()
        assert np.array_equal(stacked[row], alone)
        assert not np.array_equal(stacked[row], images.load_gray(files[row])), "nor by Pillow"
    assert 2 in batch.errors
    assert set(batch.errors) <= {1, 2}
    assert batch.errors[2].startswith(("not-an-image", "truncated"))
    assert (stacked[2] == 0).all()


def test_a_full_gpu_is_not_a_bad_image() -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    batch = EncodedImages([jpeg(0)], NO_GRAY, [(61, 90)], 4, CPU, full)
    with pytest.raises(torch.OutOfMemoryError):
        batch.stack([0])


def test_the_network_gets_few_images_at_a_time_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictor, "max_batch", lambda *_: 2)
    calls: list[str] = []
    network = predictor.Predictor(UNet(base=2), CPU)
    monkeypatch.setattr(
        network, "soft_masks", lambda gray: calls.append(f"predict {len(gray)}") or gray
    )

    def decode(files: Sequence[bytes], *how: Any) -> torch.Tensor:
        calls.append(f"decode {len(files)}")
        return decode_with_pillow(files, *how)

    files = [jpeg(seed) for seed in range(5)]
    data, gray = [b""] * 5, [images.load_gray(file) for file in files]
    for row in (0, 2):
        data[row] = files[row]
    mixed = EncodedImages(data, gray, [(61, 90)] * 5, 4, CPU, decode)
    masks = network.soft_masks_mixed(mixed, [(61, 90)] * 5)
    assert calls == ["decode 2", "predict 2", "predict 2", "predict 1"]
    for mask, file in zip(masks, files, strict=True):
        assert np.abs(mask.astype(int) - images.load_gray(file)).mean() < 1, "in their order"


def test_an_image_of_another_size_than_its_header_says_is_decoded_on_the_cpu() -> None:
    batch = encoded([jpeg(0)], (61, 91))
    assert np.array_equal(batch.stack([0])[0].numpy(), images.load_gray(jpeg(0)))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, True),
        ({"subsampling": 0}, True),
        ({"subsampling": 2, "optimize": True}, True),
        ({"progressive": True}, False),
        ({"keep_rgb": True}, False),
    ],
)
def test_nvjpeg_gets_usual_jpegs(how: dict[str, object], expected: bool) -> None:
    assert validate.nvjpeg_can_decode(validate.open_image(jpeg(0, **how))) == expected


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_nvjpeg_gets_jpegs_with_luma_and_two_chroma_channels_only(mode: str) -> None:
    with io.BytesIO() as file:
        Image.new(mode, (32, 32)).save(file, "JPEG")
        assert not validate.nvjpeg_can_decode(validate.open_image(file.getvalue()))


def adobe(data: bytes, transform: int) -> bytes:
    """Add an Adobe segment: the channels are RGB (0), or luma and two chroma channels (1)."""
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4) + bytes([transform]) + data[2:]


def named(data: bytes, names: bytes) -> bytes:
    """Set the ids of the three components, in the headers of the frame and of the scan."""
    octets = bytearray(data)
    frame, scan = data.index(b"\xff\xc0") + 10, data.index(b"\xff\xda") + 5
    octets[frame : frame + 9 : 3] = octets[scan : scan + 6 : 2] = names
    return bytes(octets)


def test_nvjpeg_gets_no_jpeg_of_rgb_channels() -> None:
    """libjpeg recognizes both signs of RGB; nvJPEG need not."""
    usual = jpeg(0)
    usual = usual[:2] + usual[20:]  # a JFIF segment would override both
    for data, expected in (
        (adobe(usual, 1), True),
        (adobe(usual, 0), False),
        (named(usual, bytes([1, 2, 3])), True),
        (named(usual, b"RGB"), False),
    ):
        image = validate.open_image(data)
        assert validate.nvjpeg_can_decode(image) == expected
        same = np.array_equal(images.to_gray(image), images.load_gray(usual))
        assert same == expected, "libjpeg sees another image"


def test_nvjpeg_gets_no_truncated_file() -> None:
    with pytest.raises(validate.BadImageError, match="truncated"):
        validate.nvjpeg_can_decode(validate.open_image(jpeg(0)[:-40]))


@pytest.fixture
def decode() -> Decode:
    """The decoder of a GPU."""
    pytest.importorskip("torchvision")
    return nvjpeg.Decoder(torch.device("cuda"))


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_nvjpeg_decodes_as_libjpeg(decode: Decode, subsampling: int) -> None:
    device = torch.device("cuda")
    size = (1280, 1918)
    files = [jpeg(seed, *size, subsampling=subsampling) for seed in range(70)]
    batch = EncodedImages(files, NO_GRAY * 70, [size] * 70, 4, device, decode)
    found = batch.stack(range(70)).cpu().numpy()
    for one, file in zip(found, files, strict=True):
        differ = np.abs(one.astype(int) - images.load_gray(file))
        assert differ.mean() < 0.3
        assert differ.max() <= 3
    assert not batch.errors


@gpu
@pytest.mark.gpu
def test_nvjpeg_survives_damaged_files(decode: Decode) -> None:
    """Zeros or noise in the middle of a file: good files next to it are decoded as always."""
    device, size = torch.device("cuda"), (640, 960)
    rng = np.random.default_rng(0)
    good = [jpeg(seed, *size) for seed in range(16)]
    expected = [images.load_gray(file).astype(int) for file in good]
    for _ in range(40):
        files = []
        for file in good:
            bad = bytearray(file)
            at, length = int(rng.integers(700, len(bad) - 60)), int(rng.integers(1, 50))
            bad[at : at + length] = rng.bytes(length) if rng.random() < 0.7 else bytes(length)
            files.append(bytes(bad))
        files[::4] = good[::4]
        batch = EncodedImages(files, NO_GRAY * 16, [size] * 16, 4, device, decode)
        found = batch.stack(range(16)).cpu().numpy()
        for place in range(0, 16, 4):
            assert np.abs(found[place] - expected[place]).mean() < 0.3


@gpu
@pytest.mark.gpu
def test_pixels_do_not_depend_on_the_batch_or_the_thread(decode: Decode) -> None:
    size = (640, 960)
    files = [jpeg(seed, *size) for seed in range(16)]
    expected = decode(files, size, 4)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda file: decode([file], size, 4), files))
    assert torch.equal(torch.cat(found), expected)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "_library_names", lambda: iter(["/nowhere/libnvjpeg.so.13"]))
    with pytest.raises(ImportError, match="libnvjpeg is missing; install torchvision"):
        nvjpeg._load_library.__wrapped__()


def test_torchvisions_library_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia/cu13/lib/libnvjpeg.so.13", "torchvision.libs/libnvjpeg.36e11081.so.13"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    names = list(nvjpeg._library_names())
    assert [Path(name).parent.name for name in names[:2]] == ["torchvision.libs", "lib"]
    assert names[2:] == ["libnvjpeg.so.13", "libnvjpeg.so.12"]


@gpu
@pytest.mark.gpu
def test_nvjpeg_decodes_real_images(decode: Decode, real_data: Path) -> None:
    device, size = torch.device("cuda"), (1280, 1918)
    files = [path.read_bytes() for path in sorted((real_data / "test").glob("*.jpg"))[:64]]
    batch = EncodedImages(files, NO_GRAY * len(files), [size] * len(files), 4, device, decode)
    for one, file in zip(batch.stack(range(len(files))).cpu().numpy(), files, strict=True):
        assert np.abs(one.astype(int) - images.load_gray(file)).mean() < 0.3
