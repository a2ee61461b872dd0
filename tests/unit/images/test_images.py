"""Pictures and masks: decoding against numpy, and the way to the network's grid and back.

Every function has a slow reference here, written with numpy in float64 from the full picture.
"""

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.images import validate as formats

HEIGHT, WIDTH = 1280, 1918
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
REASONS = ("not-an-image", "truncated", "too-large", "mode", "animated", "mask-values")


def save(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """A coloured picture of waves: steep enough that a grid off by one block is seen at once."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [
        128 + 80 * np.sin(x / a + phase) * np.cos(y / b)
        for a, b, phase in ((32, 40, 0), (45, 30, 1), (37, 36, 2))
    ]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def block_mean(levels: np.ndarray, downscale: int) -> np.ndarray:
    """The mean of each block in float64, the last ones padded with the last column and row."""
    height, width = levels.shape
    h, w = math.ceil(height / downscale), math.ceil(width / downscale)
    padding = ((0, h * downscale - height), (0, w * downscale - width))
    padded = np.pad(levels.astype(np.float64), padding, mode="edge")
    return padded.reshape(h, downscale, w, downscale).mean(axis=(1, 3))


def reference(data: bytes, downscale: int) -> np.ndarray:
    """The block mean of the fully decoded picture's mean of red, green and blue."""
    full = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float64)
    return block_mean(full.mean(axis=-1), downscale)


def bilinear(share: np.ndarray, times: int) -> np.ndarray:
    """Enlarge by a whole factor in float64: half-pixel centres, clamped at the edges."""

    def weights(length: int) -> np.ndarray:
        result = np.zeros((length * times, length))
        for place in range(length * times):
            at = (place + 0.5) / times - 0.5
            low = math.floor(at)
            for source, weight in ((low, 1 - (at - low)), (low + 1, at - low)):
                result[place, min(max(source, 0), length - 1)] += weight
        return result

    return weights(share.shape[0]) @ share.astype(np.float64) @ weights(share.shape[1]).T


def png_header(width: int, height: int) -> bytes:
    """A PNG of gray pixels that promises a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(save(np.zeros((16, 16, 3), dtype=np.uint8)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.fixture(scope="module")
def jpegs() -> dict[int, bytes]:
    """Waves at full size, by PIL's subsampling: 0 is 4:4:4, 2 is 4:2:0."""
    return {s: save(smooth(HEIGHT, WIDTH), quality=90, subsampling=s) for s in (0, 2)}


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize(("downscale", "size"), [(2, (640, 959)), (4, (320, 480)), (8, (160, 240))])
def test_a_jpeg_shrinks_to_the_block_mean_of_the_whole_picture(
    jpegs: dict[int, bytes], subsampling: int, downscale: int, size: tuple[int, int]
) -> None:
    data = jpegs[subsampling]
    gray = images.load_gray(data, downscale)
    assert gray.dtype == np.uint8
    assert gray.shape == size
    wrong = np.abs(gray - reference(data, downscale))
    assert wrong.mean() < 1
    assert wrong[-1].mean() < 1
    assert (
        wrong[:, -1].mean() < 2
    )  # of a block that lies half outside, the encoder's padding counts
    assert wrong[:, -2].mean() < 1


def test_a_jpeg_at_full_size_is_the_mean_of_its_colours(jpegs: dict[int, bytes]) -> None:
    gray = images.load_gray(jpegs[2], 1)
    assert gray.shape == (HEIGHT, WIDTH)
    assert np.abs(gray - reference(jpegs[2], 1)).max() <= 1


def test_red_green_and_blue_count_alike() -> None:
    for colour in ((240, 0, 0), (0, 240, 0), (0, 0, 240)):
        pixels = np.full((16, 16, 3), colour, dtype=np.uint8)
        assert np.abs(images.load_gray(save(pixels, "PNG"), 4).astype(int) - 80).max() <= 1


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
    ],
)
def test_other_kinds_of_picture_shrink_alike(
    kind: str, mode: str, options: dict[str, Any], worst: float, downscale: int
) -> None:
    data = save(Image.fromarray(smooth(120, 200)).convert(mode), kind, **options)
    gray = images.load_gray(data, downscale)
    assert gray.shape == (math.ceil(120 / downscale), math.ceil(200 / downscale))
    assert np.abs(gray - reference(data, downscale)).mean() < worst


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
def test_every_size_gives_the_grid_that_it_should(kind: str, downscale: int) -> None:
    for height, width in [(8, 8), (9, 8), (8, 9), (15, 17), (16, 31), (23, 8), (40, 33)]:
        data = save(smooth(height, width), kind)
        wanted = (math.ceil(height / downscale), math.ceil(width / downscale))
        assert images.load_gray(data, downscale).shape == wanted
        assert images.grid_size(height, width, downscale) == wanted


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (5, 100), (100, 5), (3, 7), (2, 3)])
def test_a_picture_smaller_than_a_block_gives_the_grid_that_it_should(
    kind: str, height: int, width: int
) -> None:
    data = save(smooth(height, width), kind)
    for downscale in images.DOWNSCALES:
        wanted = (math.ceil(height / downscale), math.ceil(width / downscale))
        assert images.load_gray(data, downscale).shape == wanted, downscale


@pytest.mark.parametrize("downscale", [0, 3, 16, -4])
def test_another_downscale_is_refused(downscale: int) -> None:
    with pytest.raises(ValueError, match=f"downscale {downscale}"):
        images.load_gray(save(smooth(16, 16)), downscale)


def test_the_size_of_a_picture_is_height_and_width() -> None:
    assert formats.image_size(save(smooth(20, 30))) == (20, 30)
    assert formats.image_size(save(smooth(20, 30), "PNG")) == (20, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not-an-image", id="empty"),
        pytest.param(b"\xff\xd8", "not-an-image", id="first bytes of a JPEG"),
        pytest.param(b"<!doctype html><title>404</title>", "not-an-image", id="HTML"),
        pytest.param(b"\0" * 5000, "not-an-image", id="zeros"),
        pytest.param(save(np.zeros((8, 8), np.uint8), "GIF"), "not-an-image", id="GIF"),
        pytest.param(save(np.zeros((8, 8), np.uint8), "BMP"), "not-an-image", id="BMP"),
        pytest.param(save(np.zeros((8, 8), np.uint16), "PNG"), "mode", id="16 bit"),
        pytest.param(save(np.zeros((8, 8, 4), np.uint8), "PNG"), "mode", id="RGBA"),
        pytest.param(save(Image.new("LA", (8, 8)), "PNG"), "mode", id="gray and alpha"),
        pytest.param(png_header(100_000, 100_000), "too-large", id="bomb, PNG"),
        pytest.param(jpeg_header(65_000, 65_000), "too-large", id="bomb, JPEG"),
        pytest.param(png_header(8_000, 8_000), "too-large", id="PNG that PIL would take"),
        pytest.param(jpeg_header(8_000, 8_000), "too-large", id="JPEG that PIL would take"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=f"^{reason}: "):
        images.load_gray(data, 4)
    with pytest.raises(BadImageError, match=f"^{reason}: "):
        formats.image_size(data)


def test_the_largest_picture_is_refused_from_one_row_on() -> None:
    width = 16 * 1918
    assert formats.image_size(png_header(width, 1280)) == (1280, width)
    with pytest.raises(BadImageError, match=r"^too-large: "):
        formats.image_size(png_header(width, 1281))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("downscale", [1, 4, 8])
def test_a_picture_that_is_cut_short_is_refused(kind: str, share: float, downscale: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    data = save(noise, kind)
    with pytest.raises(BadImageError, match=r"^truncated: "):
        images.load_gray(data[: int(len(data) * share)], downscale)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("left", [1, 2, 10, 100, 300, 600])
def test_a_jpeg_that_is_cut_within_its_headers_is_refused(
    options: dict[str, Any], left: int
) -> None:
    data = save(smooth(64, 64), **options)
    with pytest.raises(BadImageError, match=r"^(truncated|not-an-image): "):
        images.load_gray(data[:left], 4)


FUZZED = [
    save(smooth(24, 40)),
    save(smooth(24, 40), progressive=True),
    save(smooth(24, 40), "PNG"),
    save(smooth(24, 40), "WEBP"),
    save(Image.new("1", (40, 24)), "PNG"),
    save(Image.new("P", (40, 24)), "GIF"),
]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    data=st.sampled_from(FUZZED),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_a_damaged_file_is_a_picture_or_a_bad_picture_and_nothing_else(
    data: bytes, flips: list[tuple[int, int]], keep: float
) -> None:
    damaged = bytearray(data)
    for place, value in flips:
        damaged[place % len(damaged)] = value
    cut = bytes(damaged[: int(len(damaged) * keep)])
    for load in (images.load_gray, images.load_mask, formats.image_size):
        try:
            load(cut)
        except BadImageError as error:
            assert str(error).startswith(REASONS)  # noqa: PT017


def gif(mask: np.ndarray, palette: list[int], car: int) -> bytes:
    image = Image.fromarray(np.where(mask, car, 1 - car).astype(np.uint8), "P")
    image.putpalette(palette)
    return save(image, "GIF")


def blob() -> np.ndarray:
    mask = np.zeros((21, 34), dtype=bool)
    mask[3:9, 5:30] = mask[12, 1] = mask[-1, -1] = True
    return mask


@pytest.mark.parametrize(
    ("palette", "car"),
    [([0, 0, 0, 255, 255, 255], 1), ([255, 255, 255, 0, 0, 0], 0)],
    ids=["index 1 is white", "index 0 is white"],
)
def test_a_gif_mask_is_read_through_its_palette(palette: list[int], car: int) -> None:
    mask = images.load_mask(gif(blob(), palette, car))
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, blob())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_png_mask_is_read_whatever_its_mode(mode: str) -> None:
    data = save(Image.fromarray(blob()).convert("L").convert(mode), "PNG")
    assert np.array_equal(images.load_mask(data), blob())


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_of_one_value_is_all_or_nothing(value: bool) -> None:
    mask = images.load_mask(save(np.full((5, 7), 255 * value, dtype=np.uint8), "PNG"))
    assert mask.all() == value
    assert mask.any() == value


@pytest.mark.parametrize("value", [1, 127, 128, 254])
def test_a_gray_level_between_black_and_white_is_no_mask(value: int) -> None:
    levels = np.zeros((8, 8), dtype=np.uint8)
    levels[2, 3] = value
    with pytest.raises(BadImageError, match=r"^mask-values: 1 "):
        images.load_mask(save(levels, "PNG"))


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_mask_that_moves_is_refused(kind: str) -> None:
    frames = [Image.fromarray(mask).convert("L") for mask in (blob(), ~blob())]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadImageError, match=r"^animated: 2 "):
        images.load_mask(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-an-image"),
        (b"<html>", "not-an-image"),
        (save(np.zeros((8, 8), np.uint8), "JPEG"), "not-an-image"),
        (save(np.zeros((8, 8, 4), np.uint8), "PNG"), "mode"),
        (png_header(100_000, 100_000), "too-large"),
        (png_header(8_000, 8_000), "too-large"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=f"^{reason}: "):
        images.load_mask(data)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_mask_that_is_cut_short_is_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).random((200, 300)) < 0.5
    data = save(noise.astype(np.uint8) * np.uint8(255), kind)
    with pytest.raises(BadImageError, match=r"^truncated: "):
        images.load_mask(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_mask_cut_at_any_byte_is_a_bad_picture_or_the_mask(kind: str) -> None:
    mask = np.random.default_rng(0).random((24, 40)) < 0.5
    data = save(mask.astype(np.uint8) * np.uint8(255), kind)
    for length in range(len(data)):
        try:
            assert np.array_equal(images.load_mask(data[:length]), mask), length
        except BadImageError as error:
            assert str(error).startswith(REASONS)  # noqa: PT017


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_mask_with_one_wrong_byte_is_a_mask_or_a_bad_picture(kind: str) -> None:
    noise = np.random.default_rng(0).random((12, 20)) < 0.5
    data = save(noise.astype(np.uint8) * np.uint8(255), kind)
    others: dict[str, int] = {}
    for place in range(len(data)):
        for value in (0, 1, 0x21, 0x2C, 0x3B, 0xF9, 0xFF):  # among them the marks of GIF's blocks
            damaged = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                images.load_mask(damaged)
            except BadImageError:
                pass
            except Exception as error:  # all kinds of it are to be listed
                others[repr(error)] = place
    assert others == {}


@settings(deadline=None, max_examples=200)
@given(mask=MASKS, downscale=st.sampled_from([1, 2, 3, 4, 8]))
def test_shrunk_masks_are_the_rounded_share_of_each_block(mask: np.ndarray, downscale: int) -> None:
    share = images.shrink_mask(mask, downscale)
    exact = block_mean(mask * 255.0, downscale)
    assert share.dtype == np.uint8
    assert share.shape == exact.shape
    assert np.abs(share - exact).max() <= 0.5


def test_a_mask_of_full_size_shrinks_with_its_last_column_and_row() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, -2:] = True
    share = images.shrink_mask(mask, 8)
    assert share.shape == (160, 240)
    # Of the last block's 8 columns 4 are background, 2 are car, and 2 repeat the last one.
    assert set(share[:, -1].tolist()) <= {127, 128}
    assert not share[:, :-1].any()


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
def test_the_factor_of_a_grid_is_found_and_no_other_grid_is_taken(downscale: int) -> None:
    assert images.infer_downscale(1280, 1918, *images.grid_size(1280, 1918, downscale)) == downscale
    assert images.infer_downscale(21, 33, *images.grid_size(21, 33, downscale)) == downscale
    with pytest.raises(ValueError, match="no whole fraction"):
        images.infer_downscale(
            1280, 1918, math.ceil(1280 / downscale) - 1, math.ceil(1918 / downscale)
        )
    with pytest.raises(ValueError, match="no whole fraction"):
        images.enlarge(np.zeros((10, 10), dtype=np.uint8), 1280, 1918)


SIZES = [(8, 8), (16, 24), (17, 25), (31, 40), (40, 30), (9, 64)]


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_enlarge_is_bilinear_above_a_half(height: int, width: int, downscale: int) -> None:
    rng = np.random.default_rng(height * width + downscale)
    for _ in range(5):
        share = rng.integers(0, 256, images.grid_size(height, width, downscale), dtype=np.uint8)
        exact = bilinear(share, downscale)[:height, :width] > 127.5
        mask = images.enlarge(share, height, width)
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, exact)


@settings(deadline=None, max_examples=100)
@given(
    share=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.sampled_from([0, 1, 127, 128, 254, 255]),
    ),
    downscale=st.sampled_from([2, 4, 8]),
)
def test_enlarge_adds_up_a_uint8_share_exactly_ties_included(
    share: np.ndarray, downscale: int
) -> None:
    height, width = (length * downscale for length in share.shape)
    assert np.array_equal(images.enlarge(share, height, width), bilinear(share, downscale) > 127.5)


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
def test_levels_and_fractions_enlarge_to_the_same_mask(downscale: int) -> None:
    h, w = images.grid_size(61, 83, downscale)
    share = np.random.default_rng(downscale).integers(0, 256, (h, w), dtype=np.uint8)
    tie = np.abs(bilinear(share, downscale)[:61, :83] - 127.5) < 1e-3
    assert tie.mean() < 0.02
    whole = images.enlarge(share, 61, 83)
    for kind in (np.float32, np.float64):
        assert np.array_equal(images.enlarge((share / 255).astype(kind), 61, 83) | tie, whole | tie)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_batch_enlarges_as_one_by_one(kind: type) -> None:
    share = np.random.default_rng(0).integers(0, 256, (5, 6, 9), dtype=np.uint8)
    batch = share if kind is np.uint8 else (share / 255).astype(np.float32)
    masks = images.enlarge(batch, 22, 33)
    assert masks.shape == (5, 22, 33)
    assert masks.dtype == np.bool_
    for mask, one in zip(masks, batch, strict=True):
        assert np.array_equal(mask, images.enlarge(one, 22, 33))
    assert images.enlarge(batch[:0], 22, 33).shape == (0, 22, 33)


@pytest.mark.parametrize(("downscale", "least"), [(2, 0.9995), (4, 0.999), (8, 0.998)])
@pytest.mark.parametrize(
    ("x", "y", "rx", "ry"),
    [(959, 640, 600, 300), (900.3, 700.7, 450.2, 210.9), (1500, 900, 600, 500)],
    ids=["in the middle", "small", "over the edges"],
)
def test_a_smooth_car_survives_the_way_to_the_grid_and_back(
    x: float, y: float, rx: float, ry: float, downscale: int, least: float
) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 < 1
    back = images.enlarge(images.shrink_mask(mask, downscale), HEIGHT, WIDTH)
    assert dice(mask, back) >= least


@pytest.mark.parametrize("downscale", [2, 4, 8])
def test_a_car_of_usual_size_keeps_a_dice_of_0999_at_every_downscale(downscale: int) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((columns - 959) / 600) ** 2 + ((rows - 640) / 300) ** 2 < 1
    back = images.enlarge(images.shrink_mask(mask, downscale), HEIGHT, WIDTH)
    assert dice(mask, back) >= 0.999


@settings(deadline=None, max_examples=50)
@given(mask=MASKS)
def test_at_downscale_1_the_way_there_and_back_changes_nothing(mask: np.ndarray) -> None:
    assert np.array_equal(images.enlarge(images.shrink_mask(mask, 1), *mask.shape), mask)


def test_standardized_pictures_have_mean_0_and_deviation_1() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (4, 30, 40), dtype=np.uint8)
    levels = images.standardize(gray)
    assert levels.dtype == np.float32
    assert levels.shape == gray.shape
    assert np.abs(levels.mean(axis=(1, 2))).max() < 1e-5
    assert np.abs(levels.std(axis=(1, 2)) - 1).max() < 1e-3
    exact = (gray - gray.mean(axis=(1, 2), keepdims=True)) / np.sqrt(
        gray.astype(np.float64).var(axis=(1, 2), keepdims=True) + 1
    )
    assert np.abs(levels - exact).max() < 1e-4


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_blank_picture_becomes_zeros(level: int) -> None:
    for gray in (
        np.full((2, 8, 9), level, dtype=np.uint8),
        torch.full((2, 8, 9), level, dtype=torch.uint8),
    ):
        assert (np.asarray(images.standardize(gray)) == 0).all()


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    gray = np.random.default_rng(1).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    gray[0] //= 9
    gray[2] = 255
    together = images.standardize(gray)
    for one, alone in zip(together, gray, strict=True):
        assert np.array_equal(one, images.standardize(alone))
    assert np.array_equal(images.standardize(gray[:, None])[:, 0], together)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_numpy_and_torch_standardize_alike(kind: type) -> None:
    gray = np.random.default_rng(2).integers(0, 256, (3, 1, 20, 30)).astype(kind)
    tensor = images.standardize(torch.from_numpy(gray))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    assert np.allclose(tensor.numpy(), images.standardize(gray), atol=1e-5)


def test_standardize_leaves_its_input_alone() -> None:
    gray = np.arange(12, dtype=np.float32).reshape(3, 4)
    before = gray.copy()
    images.standardize(gray)
    assert np.array_equal(gray, before)


@pytest.mark.parametrize("downscale", [3, 5, 6, 7])
def test_a_mask_shrunk_by_any_whole_number_is_enlarged_by_it(downscale: int) -> None:
    mask = np.zeros((61, 93), dtype=bool)
    mask[12:48, 20:77] = True
    share = images.shrink_mask(mask, downscale)
    back = images.enlarge(share, *mask.shape)
    assert back.shape == mask.shape
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.93


def test_a_mask_is_what_pillow_makes_of_its_palette() -> None:
    """Palettes of any order and length, with unused colours, and some near black and white."""
    rng = np.random.default_rng(0)
    taken = refused = 0
    for _ in range(120):
        height, width = rng.integers(1, 40, 2)
        drawn = rng.integers(0, rng.integers(1, 9), (height, width), dtype=np.uint8)
        image = Image.fromarray(drawn)
        near = rng.choice([0, 1, 254, 255], (256, 3)) if rng.random() < 0.3 else None
        colours = rng.choice([0, 255], (256, 1)).repeat(3, 1) if near is None else near
        image.putpalette(colours[: rng.integers(9, 257)].astype(np.uint8).tobytes())
        if rng.random() < 0.3:
            image = image.convert(str(rng.choice(["L", "1", "RGB"])))
        file = io.BytesIO()
        image.save(file, "GIF" if image.mode == "P" and rng.random() < 0.5 else "PNG")
        gray = np.asarray(Image.open(file).convert("L"))
        if ((gray > 0) & (gray < 255)).any():
            with pytest.raises(BadImageError, match="mask-values"):
                images.load_mask(file.getvalue())
            refused += 1
        else:
            assert np.array_equal(images.load_mask(file.getvalue()), gray == 255)
            taken += 1
    assert taken > 50
    assert refused > 10
