"""Masks of any tool: the right pixels or a clear no, and Kaggle's as ever."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from support.corpus import save, sized_png
from support.pairs import draw_pair

from carvana_ray.errors import BadImageError
from carvana_ray.images.masks import load_mask

REASONS = ("not-an-image", "truncated", "too-large", "mode", "animated", "mask-values")


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
    mask = load_mask(gif(blob(), palette, car))
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, blob())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_png_mask_is_read_in_every_mode(mode: str) -> None:
    data = save(Image.fromarray(blob()).convert("L").convert(mode), "PNG")
    assert np.array_equal(load_mask(data), blob())


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_of_one_value_is_all_true_or_all_false(value: bool) -> None:
    mask = load_mask(save(np.full((5, 7), 255 * value, dtype=np.uint8), "PNG"))
    assert mask.all() == value
    assert mask.any() == value


def two_tone(dark: Any, bright: Any, dtype: Any = np.uint8) -> np.ndarray:
    """`blob` in two values or two colors; the bright one is the car."""
    car = blob() if np.ndim(dark) == 0 else blob()[..., None]
    return np.where(car, bright, dark).astype(dtype)


@pytest.mark.parametrize(
    ("dark", "bright"), [(0, 1), (0, 255), (1, 2), (254, 255), (0, 128), (100, 140)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_the_brighter_of_any_two_gray_levels_is_car(kind: str, dark: int, bright: int) -> None:
    assert np.array_equal(load_mask(save(two_tone(dark, bright), kind)), blob())


@pytest.mark.parametrize(
    ("dark", "bright"),
    [
        ((0, 0, 0), (128, 0, 0)),
        ((0, 0, 0), (0, 0, 255)),
        ((128, 0, 0), (255, 255, 0)),
        ((68, 1, 84), (253, 231, 37)),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_the_brighter_of_two_colors_is_car(mode: str, dark: Any, bright: Any) -> None:
    image = Image.fromarray(two_tone(dark, bright)).convert(mode, palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(load_mask(save(image, "PNG")), blob())


@pytest.mark.parametrize(
    ("dark", "bright", "dtype"),
    [
        (0, 1, np.uint16),
        (0, 255, np.uint16),
        (0, 65535, np.uint16),
        (300, 301, np.uint16),
        (-1, 70000, np.int32),
        (0, 1, np.float32),
        (0.25, 0.5, np.float32),
    ],
)
def test_a_mask_of_deep_pixels_is_read(dark: float, bright: float, dtype: Any) -> None:
    deep = Image.fromarray(two_tone(dark, bright, dtype))
    for kind in ("TIFF", "PNG") if dtype is np.uint16 else ("TIFF",):
        assert np.array_equal(load_mask(save(deep, kind)), blob())


def disc(size: int = 120) -> np.ndarray:
    """A disc with edges of two pixels, float64 [size, size], 0 to 1."""
    y, x = np.mgrid[:size, :size] - size / 2
    return np.clip((size / 3 - np.hypot(y, x)) / 2 + 0.5, 0, 1)


SOFT = np.rint(disc() * 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG", "WEBP"])
def test_soft_edges_are_cut_at_128(kind: str) -> None:
    options: dict[str, Any] = {"quality": 95} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    wrong = load_mask(save(SOFT, kind, **options)) != (SOFT >= 128)
    assert np.count_nonzero(wrong) <= (20 if kind == "JPEG" else 0)


@pytest.mark.parametrize("color", [(255, 0, 0), (128, 0, 0), (0, 255, 0)], ids=str)
def test_soft_edges_of_a_color_are_cut_in_the_middle(color: Any) -> None:
    drawn = np.rint(disc()[..., None] * color).astype(np.uint8)
    wrong = load_mask(save(drawn, "PNG")) != (disc() >= 0.5)
    assert np.count_nonzero(wrong) <= 20  # the gray levels of dark red are coarse


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint16, 65535), (np.uint16, 255), (np.float32, 1)]
)
def test_soft_edges_of_deep_pixels_are_cut_in_the_middle(dtype: Any, white: int) -> None:
    values = disc() * white if dtype is np.float32 else np.rint(disc() * white)
    mask = load_mask(save(Image.fromarray(values.astype(dtype)), "TIFF"))
    assert np.array_equal(mask, np.rint(values * 255 / white) >= 128)


def with_alpha(color: Any, alpha: np.ndarray) -> Image.Image:
    image = Image.new("RGB", alpha.shape[::-1], color)
    image.putalpha(Image.fromarray(alpha))
    return image


def on_palette(colors: list[int]) -> Image.Image:
    image = Image.fromarray(blob().astype(np.uint8), "P")
    image.putpalette(colors)
    return image


HARD = blob().astype(np.uint8) * np.uint8(255)
WHITES = [255] * 6
TRANSPARENT = {
    "white on clear": save(with_alpha((255, 255, 255), HARD), "PNG"),
    "red on clear": save(with_alpha((255, 0, 0), HARD), "PNG"),
    "half clear": save(with_alpha((255, 255, 255), HARD // np.uint8(2)), "PNG"),
    "gray and alpha": save(with_alpha((255, 255, 255), HARD).convert("LA"), "PNG"),
    "the mask in all channels": save(Image.merge("RGBA", [Image.fromarray(HARD)] * 4), "PNG"),
    "TIFF": save(with_alpha((255, 255, 255), HARD), "TIFF"),
    "WebP": save(with_alpha((255, 255, 255), HARD), "WEBP", lossless=True),
    "palette PNG, all white": save(on_palette(WHITES), "PNG", transparency=b"\0\xff"),
    "GIF, all white": save(on_palette(WHITES), "GIF", transparency=0),
    "palette PNG, black and clear": save(
        on_palette([0, 0, 0, 255, 255, 255]), "PNG", transparency=b"\0\xff"
    ),
    "quantized": save(with_alpha((255, 255, 255), HARD).quantize(4), "PNG"),
    "gray, one level clear": save(Image.fromarray(HARD), "PNG", transparency=0),
    "opaque": save(Image.fromarray(HARD).convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_counts_as_a_viewer_shows_it(name: str) -> None:
    assert np.array_equal(load_mask(TRANSPARENT[name]), blob())


def test_of_white_and_black_on_transparent_ground_white_is_car() -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[5:35, 10:50, 3] = 255  # black
    pixels[10:30, 15:45] = 255  # white
    mask = load_mask(save(pixels, "PNG"))
    assert mask.sum() == 20 * 30
    assert mask[10:30, 15:45].all()


def test_soft_transparency_is_cut_at_128() -> None:
    assert np.array_equal(load_mask(save(with_alpha("white", SOFT), "PNG")), SOFT >= 128)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "gray"])
def test_a_file_without_any_car_is_all_ground(kind: str) -> None:
    clear = np.zeros((9, 12, {"RGB": 3, "RGBA": 4, "gray": 1}[kind]), np.uint8).squeeze()
    assert not load_mask(save(clear, "PNG")).any()


@pytest.mark.parametrize(("level", "car"), [(0, False), (3, False), (250, True), (255, True)])
def test_a_jpeg_of_one_level_is_all_car_or_all_ground(level: int, car: bool) -> None:
    mask = load_mask(save(np.full((16, 24), level, np.uint8), "JPEG"))
    assert mask.all() == mask.any() == car


def labels(*levels: int) -> np.ndarray:
    """Areas of equal width, one for each level."""
    return np.repeat(np.array(levels, np.uint8), 20)[None].repeat(40, 0)


def noisy_scene() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


def small_third_label() -> np.ndarray:
    pixels = np.array(HARD).repeat(4, 0).repeat(4, 1)
    pixels[40:48, 60:80] = 128
    return pixels


def cut_out() -> np.ndarray:
    alpha = np.zeros((60, 90, 1), np.uint8)
    alpha[20:40, 30:60] = 255
    return np.concatenate([noisy_scene(), alpha], 2)


BLURRED = Image.fromarray(HARD).filter(ImageFilter.GaussianBlur(6))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (save(labels(0, 1, 2), "PNG"), "3 gray levels from 0 to 2"),
        (save(labels(0, 128, 255), "PNG"), "33% of the pixels between"),
        (save(small_third_label(), "PNG"), "an even area of 108 pixels"),
        (save(noisy_scene(), "PNG"), "gray levels"),
        (save(noisy_scene(), "JPEG"), "colors in a JPEG"),
        (save(BLURRED, "PNG"), "gray levels"),
        (save(two_tone(0, 100), "JPEG"), "gray levels from 0 to"),
        (save(two_tone((0, 0, 0), (255, 0, 0)), "JPEG"), "colors in a JPEG"),
        (save(np.full((8, 8), 1, np.uint8), "PNG"), "all pixels have the value 1,"),
        (save(np.full((8, 8, 3), (0, 90, 0), np.uint8), "PNG"), "all pixels have the value"),
        (save(np.full((8, 8), 7, np.uint16), "PNG"), "all pixels have the value 7,"),
        (save(np.full((8, 8), np.nan, np.float32), "TIFF"), "not finite"),
        (save(labels(0, 1, 2).astype(np.float32) - 1, "TIFF"), "negative"),
        (save(two_tone((255, 0, 0), (0, 130, 0)), "PNG"), "equally bright"),
        (save(with_alpha((0, 0, 0), HARD), "PNG"), "black on transparent ground"),
        (save(cut_out(), "PNG"), "a picture with transparency"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadImageError, match=f"^mask-values: .*{said}") as error:
        load_mask(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_an_image_is_no_mask(kind: str, mode: str) -> None:
    for seed in range(8):
        image = Image.open(io.BytesIO(draw_pair(seed, (80, 120))[0]))
        data = save(image.convert("L" if (kind, mode) == ("JPEG", "P") else mode), kind)
        with pytest.raises(BadImageError, match=r"^mask-values: "):
            load_mask(data)


DRAWINGS: list[Callable[[np.ndarray], Image.Image]] = [
    Image.fromarray,
    lambda mask: Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)),
    lambda mask: Image.fromarray(mask.astype(np.uint8)),
    lambda mask: Image.fromarray(mask.astype(np.uint16) * np.uint16(65535)),
    lambda mask: Image.fromarray(np.where(mask[..., None], (200, 0, 0), 0).astype(np.uint8)),
    lambda mask: with_alpha((255, 255, 255), np.where(mask, 255, 0).astype(np.uint8)),
    lambda mask: with_alpha((0, 255, 0), np.where(mask, 200, 0).astype(np.uint8)),
]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    draw=st.sampled_from(DRAWINGS),
    kind=st.sampled_from(["PNG", "TIFF"]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_a_mask_of_two_values_is_the_same_in_every_file(
    draw: Callable[[np.ndarray], Image.Image], kind: str, height: int, width: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    mask.flat[0], mask.flat[-1] = mask.size == 1, True
    if mask.all():
        return  # one value alone may be car or ground
    assert np.array_equal(load_mask(save(draw(mask), kind)), mask)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_an_animated_mask_is_refused(kind: str) -> None:
    frames = [Image.fromarray(mask).convert("L") for mask in (blob(), ~blob())]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadImageError, match=r"^animated: 2 "):
        load_mask(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-an-image"),
        (b"<html>", "not-an-image"),
        (save(Image.new("LAB", (8, 8)), "TIFF"), "mode"),
        (sized_png(100_000, 100_000), "too-large"),
        (sized_png(9_000, 9_000), "too-large"),
    ],
)
def test_an_unusable_mask_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=f"^{reason}: "):
        load_mask(data)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("fraction", [0.4, 0.6, 0.9])
def test_a_truncated_mask_is_refused(kind: str, fraction: float) -> None:
    noise = np.random.default_rng(0).random((200, 300)) < 0.5
    data = save(noise.astype(np.uint8) * np.uint8(255), kind)
    with pytest.raises(BadImageError, match=r"^truncated: "):
        load_mask(data[: int(len(data) * fraction)])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "BMP"])
def test_a_mask_truncated_at_any_byte_is_a_bad_image_or_the_mask(kind: str) -> None:
    mask = np.random.default_rng(0).random((24, 40)) < 0.5
    data = save(mask.astype(np.uint8) * np.uint8(255), kind)
    for length in range(len(data)):
        try:
            assert np.array_equal(load_mask(data[:length]), mask), length
        except BadImageError as error:
            assert str(error).startswith(REASONS)  # noqa: PT017


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "BMP"])
def test_a_mask_with_one_wrong_byte_is_a_mask_or_a_bad_image(kind: str) -> None:
    noise = np.random.default_rng(0).random((12, 20)) < 0.5
    data = save(noise.astype(np.uint8) * np.uint8(255), kind)
    others: dict[str, int] = {}
    for place in range(len(data)):
        for value in (0, 1, 0x21, 0x2C, 0x3B, 0xF9, 0xFF):  # some of them begin a block of a GIF
            damaged = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                load_mask(damaged)
            except BadImageError:
                pass
            except Exception as error:  # of any kind: the test lists them all
                others[repr(error)] = place
    assert others == {}


def test_a_mask_equals_pillow_s_conversion_to_gray() -> None:
    """Palettes of any order and length, with unused colors, and some near black and white."""
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(120):
        height, width = rng.integers(1, 40, 2)
        drawn = rng.integers(0, rng.integers(1, 9), (height, width), dtype=np.uint8)
        image = Image.fromarray(drawn)
        near = rng.choice([0, 1, 254, 255], (256, 3)) if rng.random() < 0.3 else None
        colors = rng.choice([0, 255], (256, 1)).repeat(3, 1) if near is None else near
        image.putpalette(colors[: rng.integers(9, 257)].astype(np.uint8).tobytes())
        if rng.random() < 0.3:
            image = image.convert(str(rng.choice(["L", "1", "RGB"])))
        file = io.BytesIO()
        image.save(file, "GIF" if image.mode == "P" and rng.random() < 0.5 else "PNG")
        gray = np.asarray(Image.open(file).convert("L"))
        levels = np.unique(gray)
        if len(levels) == 1 and levels[0] not in (0, 255):
            with pytest.raises(BadImageError, match="mask-values"):
                load_mask(file.getvalue())
        elif len(levels) == 1 or len(levels) == 2:
            assert np.array_equal(load_mask(file.getvalue()), gray == max(levels[-1], 1))
            accepted += 1
    assert accepted > 50
