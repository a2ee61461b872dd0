"""JPEGs that are decoded as they are asked for, by a GPU's engines or by whatever stands in."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import images
from carvana_ray.images import validate as formats
from carvana_ray.inference import nvjpeg as jpegs
from carvana_ray.inference import predictor
from carvana_ray.inference.nvjpeg import Decode, EncodedImages
from carvana_ray.unet.network import UNet

CPU = torch.device("cpu")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def jpeg(seed: int, height: int = 61, width: int = 90, **how: object) -> bytes:
    """A picture of soft blobs, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    with io.BytesIO() as file:
        image.save(file, "JPEG", **{"quality": 92, **how})  # type: ignore[arg-type]
        return file.getvalue()


def by_pillow(files: Sequence[bytes]) -> list[torch.Tensor]:
    """What engines do: everything, in full."""
    try:
        arrays = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    except OSError as error:
        raise RuntimeError("Failed to decode batch") from error
    return [torch.tensor(array).permute(2, 0, 1) for array in arrays]


def as_arrays(files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
    return [np.frombuffer(file, np.uint8)[None] for file in files]


def coded(
    data: Sequence[NDArray[np.uint8]], flags: list[bool], sizes: list[tuple[int, int]]
) -> EncodedImages:
    return EncodedImages(data, flags, sizes, 4, CPU, by_pillow)


def test_files_and_gray_levels_come_in_the_order_that_is_asked_for() -> None:
    files = [jpeg(seed) for seed in range(4)]
    grays = [images.load_gray(file) for file in files]
    first, _, third, _ = as_arrays(files)
    pictures = coded([first, grays[1], third, grays[3]], [True, False, True, False], [(61, 90)] * 4)
    assert (len(pictures), pictures.grid(2)) == (4, (16, 23))
    places = [2, 3, 0, 1]
    found = pictures.stack(places).numpy()
    for one, place in zip(found, places, strict=True):
        assert np.abs(one.astype(int) - grays[place]).mean() < 1
    assert np.array_equal(found[[1, 3]], [grays[3], grays[1]])
    assert not pictures.errors


def test_one_that_engines_refuse_costs_the_others_nothing() -> None:
    """They are decoded as without it, by engines: other pixels would be another mask."""
    files = [jpeg(0), jpeg(1)[:300] + b"\xff\xd9", b"\xff\xd8\xff" + bytes(90), jpeg(3)]
    pictures = coded(as_arrays(files), [True] * 4, [(61, 90)] * 4)
    found = pictures.stack([0, 1, 2, 3]).numpy()
    for place in (0, 3):
        alone = coded(as_arrays([files[place]]), [True], [(61, 90)]).stack([0])[0].numpy()
        assert np.array_equal(found[place], alone)
        assert not np.array_equal(found[place], images.load_gray(files[place])), "nor by Pillow"
    assert 2 in pictures.errors
    assert set(pictures.errors) <= {1, 2}
    assert pictures.errors[2].startswith(("not-an-image", "truncated"))
    assert (found[2] == 0).all()


def test_a_full_gpu_is_no_bad_picture() -> None:
    def full(files: Sequence[bytes]) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    pictures = EncodedImages(as_arrays([jpeg(0)]), [True], [(61, 90)], 4, CPU, full)
    with pytest.raises(torch.OutOfMemoryError):
        pictures.stack([0])


def test_the_network_sees_what_is_gray_before_engines_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictor, "max_batch", lambda h, w, fold: 2)
    seen: list[str] = []
    ask = predictor.Predictor(UNet(base=2), CPU)
    monkeypatch.setattr(ask, "shares", lambda gray: seen.append(f"{len(gray)}") or gray)

    def decode(files: Sequence[bytes]) -> list[torch.Tensor]:
        seen.append(f"decode {len(files)}")
        return by_pillow(files)

    files = [jpeg(seed) for seed in range(5)]
    data, flags = as_arrays(files), [True, False, True, False, False]
    for place in (1, 3, 4):
        data[place] = images.load_gray(files[place])
    pictures = EncodedImages(data, flags, [(61, 90)] * 5, 4, CPU, decode)
    found = ask.soft_masks_mixed(pictures, [(61, 90)] * 5)
    assert seen == ["2", "decode 1", "2", "decode 1", "1"]
    for one, file in zip(found, files, strict=True):
        assert np.abs(one.astype(int) - images.load_gray(file)).mean() < 1, "in their order"


def test_a_picture_of_another_size_than_its_header_says_is_decoded_again() -> None:
    wrong = [torch.ones(3, 8, 8)]
    pictures = EncodedImages(as_arrays([jpeg(0)]), [True], [(61, 90)], 4, CPU, lambda files: wrong)
    assert np.array_equal(pictures.stack([0])[0].numpy(), images.load_gray(jpeg(0)))


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
def test_engines_get_the_usual_jpegs(how: dict[str, object], expected: bool) -> None:
    assert formats.nvjpeg_can_decode(formats.open_image(jpeg(0, **how))) == expected


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_engines_get_pictures_of_brightness_and_two_colours(mode: str) -> None:
    with io.BytesIO() as file:
        Image.new(mode, (32, 32)).save(file, "JPEG")
        assert not formats.nvjpeg_can_decode(formats.open_image(file.getvalue()))


def adobe(data: bytes, transform: int) -> bytes:
    """Say in an Adobe segment whether the three are RGB (0) or brightness and two colours (1)."""
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4) + bytes([transform]) + data[2:]


def named(data: bytes, names: bytes) -> bytes:
    """Name the three components, in the header of the frame and in that of the scan."""
    octets = bytearray(data)
    frame, scan = data.index(b"\xff\xc0") + 10, data.index(b"\xff\xda") + 5
    octets[frame : frame + 9 : 3] = octets[scan : scan + 6 : 2] = names
    return bytes(octets)


def test_engines_get_no_three_colours_however_that_is_said() -> None:
    """libjpeg goes by both signs; engines need not."""
    usual = jpeg(0)
    usual = usual[:2] + usual[20:]  # a JFIF segment would outdo both
    for data, expected in (
        (adobe(usual, 1), True),
        (adobe(usual, 0), False),
        (named(usual, bytes([1, 2, 3])), True),
        (named(usual, b"RGB"), False),
    ):
        picture = formats.open_image(data)
        assert formats.nvjpeg_can_decode(picture) == expected
        same = np.array_equal(images.to_gray(picture), images.load_gray(usual))
        assert same == expected, "to libjpeg it is another picture"


def test_engines_get_no_file_without_its_end() -> None:
    with pytest.raises(formats.BadImageError, match="truncated"):
        formats.nvjpeg_can_decode(formats.open_image(jpeg(0)[:-40]))


def test_a_picture_is_left_to_engines_by_its_name_alone() -> None:
    names = [f"{car:012x}_{view:02d}.jpg" for car in range(500) for view in range(1, 17)]
    few, more, none, every = (
        {name for name in names if formats.left_to_engines(name, share)}
        for share in (0.2, 0.7, 0.0, 1.0)
    )
    assert few < more, "a larger share takes those of a smaller one, and others"
    assert len(few) == pytest.approx(0.2 * len(names), rel=0.05)
    assert len(more) == pytest.approx(0.7 * len(names), rel=0.05)
    assert (len(none), len(every)) == (0, len(names))


@pytest.fixture
def decode() -> Decode:
    """The engines of a GPU."""
    pytest.importorskip("torchvision")
    return jpegs.make_decoder(torch.device("cuda"))


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_engines_see_what_libjpeg_sees(decode: Decode, subsampling: int) -> None:
    device = torch.device("cuda")
    size = (1280, 1918)
    files = [jpeg(seed, *size, subsampling=subsampling) for seed in range(70)]
    pictures = EncodedImages(as_arrays(files), [True] * 70, [size] * 70, 4, device, decode)
    found = pictures.stack(range(70)).cpu().numpy()
    for one, file in zip(found, files, strict=True):
        differ = np.abs(one.astype(int) - images.load_gray(file))
        assert differ.mean() < 0.3
        assert differ.max() <= 3
    assert not pictures.errors


@gpu
@pytest.mark.gpu
def test_engines_survive_damaged_files(decode: Decode) -> None:
    """Bits flipped, zeros and noise in the middle: what comes out is a picture, or none; the next
    good ones are as they were."""
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
        pictures = EncodedImages(as_arrays(files), [True] * 16, [size] * 16, 4, device, decode)
        found = pictures.stack(range(16)).cpu().numpy()
        for place in range(0, 16, 4):
            assert np.abs(found[place] - expected[place]).mean() < 0.3


@gpu
@pytest.mark.gpu
def test_real_pictures_by_engines(decode: Decode, real_data: Path) -> None:
    device, size = torch.device("cuda"), (1280, 1918)
    files = [path.read_bytes() for path in sorted((real_data / "test").glob("*.jpg"))[:64]]
    pictures = EncodedImages(
        as_arrays(files), [True] * len(files), [size] * len(files), 4, device, decode
    )
    for one, file in zip(pictures.stack(range(len(files))).cpu().numpy(), files, strict=True):
        assert np.abs(one.astype(int) - images.load_gray(file)).mean() < 0.3
