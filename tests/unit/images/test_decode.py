"""Decoding against numpy: gray levels, and every kind of damage.

The references are slow: float64 in numpy, from the fully decoded image.
"""

import importlib.util
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.corpus import save
from support.pairs import HEIGHT, WIDTH, block_mean, waves

from carvana_ray.errors import BadImageError
from carvana_ray.images.decode import load_gray, load_rgb
from carvana_ray.images.masks import load_mask
from carvana_ray.images.resize import DOWNSCALES, grid_size
from carvana_ray.images.validate import image_size

REASONS = ("not-an-image", "truncated", "too-large", "mode", "animated", "mask-values")


def reference(data: bytes, downscale: int) -> np.ndarray:
    """The block mean of the fully decoded image's mean of red, green and blue."""
    full = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float64)
    return block_mean(full.mean(axis=-1), downscale)


@pytest.fixture(scope="module")
def jpegs() -> dict[int, bytes]:
    """Waves at full size, by PIL's subsampling: 0 is 4:4:4, 2 is 4:2:0."""
    return {s: save(waves(HEIGHT, WIDTH), quality=90, subsampling=s) for s in (0, 2)}


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize(("downscale", "size"), [(2, (640, 959)), (4, (320, 480)), (8, (160, 240))])
def test_a_jpeg_shrinks_to_the_block_mean_of_the_full_image(
    jpegs: dict[int, bytes], subsampling: int, downscale: int, size: tuple[int, int]
) -> None:
    data = jpegs[subsampling]
    gray = load_gray(data, downscale)
    assert gray.dtype == np.uint8
    assert gray.shape == size
    wrong = np.abs(gray - reference(data, downscale))
    assert wrong.mean() < 1
    assert wrong[-1].mean() < 1
    assert (
        wrong[:, -1].mean() < 2
    )  # of a block that lies half outside, the encoder's padding counts
    assert wrong[:, -2].mean() < 1


def test_a_jpeg_at_full_size_is_the_mean_of_its_colors(jpegs: dict[int, bytes]) -> None:
    gray = load_gray(jpegs[2], 1)
    assert gray.shape == (HEIGHT, WIDTH)
    assert np.abs(gray - reference(jpegs[2], 1)).max() <= 1


def test_red_green_and_blue_count_alike() -> None:
    for color in ((240, 0, 0), (0, 240, 0), (0, 0, 240)):
        pixels = np.full((16, 16, 3), color, dtype=np.uint8)
        assert np.abs(load_gray(save(pixels, "PNG"), 4).astype(int) - 80).max() <= 1


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("kind", "mode", "options", "worst"),
    [
        ("JPEG", "L", {"quality": 95}, 1.0),
        ("JPEG", "CMYK", {"quality": 95}, 1.0),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}, 1.0),
        ("PNG", "RGB", {}, 1.0),
        ("PNG", "L", {}, 1.0),
        ("PNG", "P", {}, 1.0),
        ("PNG", "1", {}, 1.0),
        ("WEBP", "RGB", {"lossless": True}, 1.0),
        ("WEBP", "RGBA", {"lossless": True}, 1.0),
        ("PNG", "RGBA", {}, 1.0),
        ("PNG", "LA", {}, 1.0),
        ("AVIF", "RGB", {"quality": 100}, 1.5),
        ("BMP", "RGB", {}, 1.0),
        ("BMP", "P", {}, 1.0),
        ("TIFF", "RGB", {}, 1.0),
        ("TIFF", "CMYK", {}, 1.0),
        ("TIFF", "RGBA", {}, 1.0),
        ("TIFF", "1", {"compression": "packbits"}, 1.0),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 1.0),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}, 1.0),
        ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}, 1.0),
    ],
)
def test_other_formats_and_modes_shrink_alike(
    kind: str, mode: str, options: dict[str, Any], worst: float, downscale: int
) -> None:
    data = save(Image.fromarray(waves(120, 200)).convert(mode), kind, **options)
    gray = load_gray(data, downscale)
    assert gray.shape == (math.ceil(120 / downscale), math.ceil(200 / downscale))
    assert np.abs(gray - reference(data, downscale)).mean() < worst


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_the_upper_eight(kind: str) -> None:
    deep = np.arange(0, 65_536, 97, dtype=np.uint16).reshape(26, 26)
    assert np.array_equal(load_gray(save(deep, kind), 1), deep >> 8)
    rgb = load_rgb(save(deep, kind))
    assert np.array_equal(np.asarray(rgb), np.repeat((deep >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_transparent_pixels_are_white_to_the_network(mode: str) -> None:
    """An alpha channel, and the transparent color or palette entry of a PNG."""
    image = Image.new(mode[:3] if mode == "RGBA" else mode.removesuffix("A"), (16, 16), 0)
    options: dict[str, Any] = {}
    if mode.endswith("A"):
        image.putalpha(Image.new("L", (16, 16), 0))
    elif mode == "P":
        options = {"transparency": b"\0"}
    else:
        options = {"transparency": 0 if mode == "L" else (0, 0, 0)}
    assert (load_gray(save(image, "PNG", **options), 4) == 255).all()


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    image = Image.new("RGBA", (8, 8), (100, 100, 100, 51))
    assert np.abs(load_gray(save(image, "PNG"), 1).astype(int) - (255 - 0.2 * 155)).max() <= 1


def test_a_tiff_comes_upright() -> None:
    """Pillow turns it: its pixels are those that viewers show."""
    block = Image.Exif()
    block[0x0112] = 6
    pixels = waves(24, 40)
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    data = save(turned, "TIFF", exif=block)
    assert image_size(data) == (24, 40)
    assert np.array_equal(np.asarray(load_rgb(data)), pixels)


@pytest.fixture
def heic() -> Any:
    return pytest.importorskip("pillow_heif", reason="the extra heic is not installed")


def test_a_heic_photograph_is_read_upright(heic: Any) -> None:
    pixels = waves(48, 80)
    file = io.BytesIO()
    heic.from_pillow(Image.fromarray(pixels)).save(file, quality=95)
    assert np.abs(np.asarray(load_rgb(file.getvalue())).astype(int) - pixels).mean() < 3
    assert load_gray(file.getvalue(), 4).shape == (12, 20)


def test_without_the_package_a_heic_file_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadImageError, match=r"pip install 'carvana-ray\[heic\]'"):
        load_gray(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
def test_every_size_gives_its_grid(kind: str, downscale: int) -> None:
    for height, width in [(8, 8), (9, 8), (8, 9), (15, 17), (16, 31), (23, 8), (40, 33)]:
        data = save(waves(height, width), kind)
        expected = (math.ceil(height / downscale), math.ceil(width / downscale))
        assert load_gray(data, downscale).shape == expected
        assert grid_size(height, width, downscale) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (5, 100), (100, 5), (3, 7), (2, 3)])
def test_an_image_smaller_than_a_block_gives_its_grid(kind: str, height: int, width: int) -> None:
    data = save(waves(height, width), kind)
    for downscale in DOWNSCALES:
        expected = (math.ceil(height / downscale), math.ceil(width / downscale))
        assert load_gray(data, downscale).shape == expected, downscale


@pytest.mark.parametrize("downscale", [0, 3, 16, -4])
def test_another_downscale_is_refused(downscale: int) -> None:
    with pytest.raises(ValueError, match=f"downscale {downscale}"):
        load_gray(save(waves(16, 16)), downscale)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("downscale", [1, 4, 8])
def test_a_truncated_image_is_refused(kind: str, fraction: float, downscale: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    data = save(noise, kind)
    with pytest.raises(BadImageError, match=r"^truncated: "):
        load_gray(data[: int(len(data) * fraction)], downscale)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("length", [1, 2, 10, 100, 300, 600])
def test_a_jpeg_truncated_in_its_headers_is_refused(options: dict[str, Any], length: int) -> None:
    data = save(waves(64, 64), **options)
    with pytest.raises(BadImageError, match=r"^(truncated|not-an-image): "):
        load_gray(data[:length], 4)


FUZZED = [
    save(waves(24, 40)),
    save(waves(24, 40), progressive=True),
    save(waves(24, 40), "PNG"),
    save(waves(24, 40), "WEBP"),
    save(waves(24, 40), "TIFF"),
    save(waves(24, 40), "TIFF", compression="tiff_lzw"),
    save(waves(24, 40), "BMP"),
    save(waves(24, 40), "AVIF"),
    save(Image.fromarray(waves(24, 40)).convert("RGBA"), "PNG"),
    save(Image.new("1", (40, 24)), "PNG"),
    save(Image.new("P", (40, 24)), "GIF"),
]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    data=st.sampled_from(FUZZED),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_a_damaged_file_is_an_image_or_a_bad_image_and_nothing_else(
    data: bytes, flips: list[tuple[int, int]], keep: float
) -> None:
    damaged = bytearray(data)
    for place, value in flips:
        damaged[place % len(damaged)] = value
    cut = bytes(damaged[: int(len(damaged) * keep)])
    for load in (load_gray, load_mask, image_size):
        try:
            load(cut)
        except BadImageError as error:
            assert str(error).startswith(REASONS)  # noqa: PT017
