"""Alpha matches the mask and colors follow the documented formulas, for all sizes and formats."""

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin

from carvana_ray import images
from carvana_ray.cutouts import compositing
from carvana_ray.cutouts.alpha import hard_alpha, limit_to_band, smooth_alpha, soft_alpha
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.shadow import cast_shadow
from carvana_ray.errors import BadImageError, InputError

SIZES = [(1280, 1918, 4), (61, 35, 2), (33, 47, 8), (9, 1, 4), (1, 1, 8), (16, 24, 1)]


def style(**changes: Any) -> CutoutStyle:
    plain: dict[str, Any] = {"soft": True, "background": None, "format": "png", "mask_only": False}
    return CutoutStyle(**{**plain, **changes})


def random_soft_mask(height: int, width: int, downscale: int, seed: int = 0) -> np.ndarray:
    """Return a random soft mask [h, w] with many values of 0, 255 and around one half."""
    rng = np.random.default_rng(seed)
    h, w = images.grid_size(height, width, downscale)
    return rng.choice(np.array([0, 0, 1, 126, 127, 128, 129, 254, 255, 255], np.uint8), (h, w))


def random_image(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def alpha_of(data: bytes) -> np.ndarray:
    image = opened(data)  # WebP omits an alpha channel that is 255 everywhere
    return np.asarray(image.convert("RGBA").getchannel("A"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_rendered_files_have_the_alpha_of_the_mask(size: tuple[int, int, int], kind: str) -> None:
    height, width, _ = size
    soft_mask, data = random_soft_mask(*size), file_of(random_image(height, width))
    mask = images.enlarge(soft_mask, height, width)
    soft = alpha_of(compositing.render(data, style(format=kind), soft_mask))
    hard = alpha_of(compositing.render(data, style(format=kind, soft=False), soft_mask))
    rows = alpha_of(compositing.render(data, style(format=kind, soft=False), mask=mask))
    assert np.array_equal(soft, limit_to_band(soft_alpha(soft_mask, height, width)))
    assert np.array_equal(soft >= 128, mask)
    assert np.array_equal(hard, hard_alpha(mask))
    assert np.array_equal(rows, hard)


@pytest.mark.parametrize("size", SIZES)
def test_a_hard_cutout_keeps_car_pixels_and_blackens_the_background(
    size: tuple[int, int, int],
) -> None:
    height, width, _ = size
    soft_mask, image = random_soft_mask(*size), random_image(height, width)
    result = opened(compositing.render(file_of(image), style(soft=False), soft_mask))
    pixels, mask = np.asarray(result), images.enlarge(soft_mask, height, width)
    assert np.array_equal(pixels[mask][:, :3], np.asarray(image)[mask])
    assert (pixels[~mask] == 0).all(), "the file must hide no background"


@pytest.mark.parametrize("size", SIZES)
def test_mask_only_writes_one_bit_or_soft_alpha(size: tuple[int, int, int]) -> None:
    soft_mask, data = random_soft_mask(*size), file_of(random_image(*size[:2]))
    hard = opened(compositing.render(data, style(mask_only=True, soft=False), soft_mask))
    assert hard.mode == "1"
    assert np.array_equal(np.asarray(hard), images.enlarge(soft_mask, *size[:2]))
    soft = opened(compositing.render(data, style(mask_only=True), soft_mask))
    assert soft.mode == "L"
    assert np.array_equal(np.asarray(soft), limit_to_band(soft_alpha(soft_mask, *size[:2])))


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (200, 3, 160)])
def test_composite_blends_a_color_by_alpha(background: tuple[int, int, int]) -> None:
    image = random_image(40, 50)
    alpha = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    result = np.asarray(compositing.composite(image, alpha, background))
    a = alpha[..., None].astype(int)
    exact = (a * np.asarray(image).astype(int) + (255 - a) * np.array(background)) / 255
    assert np.array_equal(result, np.rint(exact))


def test_composite_blends_a_background_image_by_alpha() -> None:
    image, background = random_image(40, 50), random_image(40, 50, seed=2)
    alpha = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    result = np.asarray(compositing.composite(image, alpha, file_of(background)))
    a = alpha[..., None].astype(int)
    exact = (
        a * np.asarray(image).astype(int) + (255 - a) * np.asarray(background).astype(int)
    ) / 255
    assert np.array_equal(result, np.rint(exact))


def random_bytes(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    """Return random uint8 [height, width] with many values of 0 and 255."""
    values = np.random.default_rng(seed).integers(-100, 356, (height, width))
    return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_shadow_darkens_the_background_and_not_the_car(as_file: bool) -> None:
    image, alpha, shadow = random_image(40, 50), random_bytes(1), random_bytes(2)
    below = random_image(40, 50, seed=3) if as_file else Image.new("RGB", (50, 40), (200, 90, 255))
    background = file_of(below) if as_file else (200, 90, 255)
    result = np.asarray(compositing.composite(image, alpha, background, shadow))
    a, s = alpha[..., None] / 255, shadow[..., None] / 255
    exact = a * np.asarray(image) + (1 - a) * (1 - s) * np.asarray(below)
    assert np.abs(result - exact).max() <= 1


def test_a_shadow_on_a_transparent_background_is_black_with_its_opacity() -> None:
    image, alpha, shadow = random_image(40, 50), random_bytes(1), random_bytes(2)
    result = compositing.composite(image, alpha, None, shadow)
    colors, opacity = np.asarray(result)[..., :3], np.asarray(result)[..., 3]
    assert np.array_equal(opacity[alpha == 0], shadow[alpha == 0])
    assert not colors[alpha == 0].any()
    assert np.array_equal(colors[alpha == 255], np.asarray(image)[alpha == 255])
    white = Image.new("RGBA", image.size, "white")
    laid = np.asarray(Image.alpha_composite(white, result).convert("RGB")).astype(int)
    direct = np.asarray(compositing.composite(image, alpha, (255, 255, 255), shadow))
    assert np.abs(laid - direct).max() <= 1


def test_composite_leaves_a_cached_background_as_it_was() -> None:
    image, background = random_image(40, 50), file_of(random_image(40, 50, seed=3))
    plain = compositing.composite(image, random_bytes(1), background).tobytes()
    compositing.composite(image, random_bytes(1), background, random_bytes(2))
    assert compositing.composite(image, random_bytes(1), background).tobytes() == plain


def test_render_casts_the_shadow_of_the_upright_car() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down
    car = np.zeros((60, 80), np.bool_)
    car[20:45, 10:70] = True
    data, stored = file_of(random_image(60, 80), exif=exif.tobytes()), car[::-1, ::-1]
    for kind in ("contact", "soft"):
        result = alpha_of(compositing.render(data, style(soft=False, shadow=kind), mask=stored))
        alpha = hard_alpha(car)
        assert np.array_equal(result, np.maximum(alpha, cast_shadow(alpha, kind)))
        assert (result[~car] > 0).any()


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (20, 20), (1, 1), (7, 90)])
def test_a_background_image_is_scaled_to_cover_and_cropped_to_its_center(
    size: tuple[int, int],
) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = (0, 255, 0)
    result = compositing.fit_background(file_of(Image.fromarray(pixels)), size)
    assert result.size == size
    middle = np.asarray(result)[size[1] // 2, size[0] // 2]
    assert middle[1] > 200


def test_hard_cutouts_have_the_pixels_of_earlier_releases() -> None:
    """Otherwise a resumed job would mix two kinds: other pixels need another version."""
    assert _digest(soft=False) == "bfc9e9a6ed8fc998"


def test_soft_cutouts_of_version_5_have_the_pixels_of_the_first() -> None:
    assert compositing.version(style()) == 5
    assert _digest() == "d0e367180fed3e74"


def _digest(**changes: Any) -> str:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (61, 77, 3), dtype=np.uint8))
    soft_mask = rng.integers(0, 256, images.grid_size(61, 77, 4), dtype=np.uint8)
    pixels = opened(compositing.render(file_of(image), style(**changes), soft_mask)).tobytes()
    return hashlib.sha256(pixels).hexdigest()[:16]


def test_hard_cutouts_are_of_version_3() -> None:
    assert {compositing.version(style(soft=False, mask_only=m)) for m in (False, True)} == {3}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_every_file_format_and_mode_keeps_its_colors(kind: str, mode: str) -> None:
    if (kind, mode) in {("JPEG", "P"), ("PNG", "CMYK"), ("WEBP", "P"), ("WEBP", "CMYK")}:
        pytest.skip("the format cannot store the mode")
    image = Image.new("RGB", (35, 21), (200, 80, 40)).convert(mode)
    data = file_of(image, kind)
    result = opened(compositing.render(data, style(), np.full((6, 9), 255, np.uint8)))
    assert (result.mode, result.size) == ("RGBA", (35, 21))
    expected = np.asarray(opened(data).convert("RGB")).astype(int)
    assert np.abs(np.asarray(result)[..., :3] - expected).max() <= 1


@pytest.mark.parametrize(
    ("kind", "background"),
    [
        ("png", None),
        ("png", (255, 255, 255)),
        ("webp", None),
        ("webp", (255, 255, 255)),
        ("jpeg", (255, 255, 255)),
    ],
)
def test_only_the_color_profile_is_copied(
    kind: str, background: tuple[int, int, int] | None
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "somebody"
    data = file_of(random_image(20, 32), "JPEG", exif=exif.tobytes(), icc_profile=profile)
    cutout_style = style(format=kind, background=background)
    result = opened(compositing.render(data, cutout_style, np.full((5, 8), 255, np.uint8)))
    assert dict(result.getexif()) == {}
    assert result.info["icc_profile"] == profile


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    "how", [{}, {"soft": False}, {"mask_only": True}, {"background": (1, 2, 3)}]
)
def test_a_cutout_is_upright(turn: int, how: dict[str, Any]) -> None:
    """It equals the cut-out of the same stored pixels without a tag, turned as viewers turn it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    pixels = random_image(21, 34)
    soft_mask = np.random.default_rng(1).integers(0, 256, (6, 9), dtype=np.uint8)
    plain = opened(compositing.render(file_of(pixels), style(**how), soft_mask))
    tagged = file_of(pixels, exif=exif.tobytes())
    result = opened(compositing.render(tagged, style(**how), soft_mask))
    plain.getexif()[ExifTags.Base.Orientation] = turn
    assert ImageOps.exif_transpose(plain).tobytes() == result.tobytes()


def test_a_background_is_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # viewers turn it clockwise: its left side is down
    sky = Image.new("RGB", (20, 20), (0, 0, 250))
    sky.paste((0, 200, 0), (10, 0, 20, 20))
    below = compositing.fit_background(file_of(sky, "PNG", exif=exif.tobytes()), (20, 20))
    assert below.getpixel((10, 2)) == (0, 0, 250)
    assert below.getpixel((10, 17)) == (0, 200, 0)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("mask_only", [True, False])
def test_the_alpha_of_the_image_limits_that_of_the_cutout(soft: bool, mask_only: bool) -> None:
    image = random_image(20, 32)
    own = np.random.default_rng(2).integers(0, 256, (20, 32), dtype=np.uint8)
    image.putalpha(Image.fromarray(own))
    soft_mask = np.full((5, 8), 255, np.uint8)
    soft_mask[:, :3] = 0
    how = style(soft=soft, mask_only=mask_only)
    alpha = [
        opened(compositing.render(file_of(picture), how, soft_mask))
        for picture in (image.convert("RGB"), image)
    ]
    without, limited = (
        np.asarray(one if mask_only else one.getchannel("A")).astype(int) for one in alpha
    )
    top = 1 if mask_only and not soft else 255
    expected = np.minimum(without, own if soft else top * (own >= 128))
    assert np.array_equal(limited, expected)


def test_a_full_alpha_changes_nothing() -> None:
    image, soft_mask = random_image(20, 32), np.full((5, 8), 200, np.uint8)
    plain = compositing.render(file_of(image), style(), soft_mask)
    assert compositing.render(file_of(image.convert("RGBA")), style(), soft_mask) == plain


def wide_profile() -> bytes:
    """An sRGB profile with red and blue exchanged: conversion changes colors visibly."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))


def test_colors_are_converted_before_another_background_only() -> None:
    profile, soft_mask = wide_profile(), np.full((5, 8), 255, np.uint8)
    data = file_of(Image.new("RGB", (32, 20), (200, 30, 30)), icc_profile=profile)
    kept = opened(compositing.render(data, style(), soft_mask))
    assert kept.getpixel((5, 5)) == (200, 30, 30, 255)
    assert kept.info["icc_profile"] == profile
    mixed = opened(compositing.render(data, style(background=(255, 255, 255)), soft_mask))
    red, green, blue = mixed.getpixel((5, 5))
    assert blue > 150 > 60 > max(red, green)


def test_a_jpeg_is_the_png_nearly_with_all_of_its_colors() -> None:
    """Halved colors would stain the white around a red car."""
    red = Image.new("RGB", (90, 60), (200, 20, 20))
    mask = np.zeros((60, 90), np.bool_)
    mask[13:47, 21:70] = True
    how = {"soft": False, "background": (255, 255, 255)}
    exact = opened(compositing.render(file_of(red), style(**how), mask=mask))
    data = compositing.render(file_of(red), style(**how, format="jpeg"), mask=mask)
    jpeg = opened(data)
    assert (jpeg.format, jpeg.mode, jpeg.size) == ("JPEG", "RGB", (90, 60))
    assert JpegImagePlugin.get_sampling(jpeg) == 0, "4:4:4"
    error = np.abs(np.asarray(jpeg).astype(int) - np.asarray(exact))
    assert error.max() <= 40
    assert error.mean() <= 1
    assert style(format="jpeg").suffix == ".jpg"


def test_a_profile_for_other_channels_is_dropped() -> None:
    data = file_of(Image.new("L", (32, 20), 9), "PNG", icc_profile=b"of gray")
    result = opened(compositing.render(data, style(), np.full((5, 8), 255, np.uint8)))
    assert "icc_profile" not in result.info


def test_a_truncated_image_is_a_bad_image() -> None:
    data = file_of(random_image(64, 96), "JPEG")
    with pytest.raises(BadImageError, match="truncated"):
        compositing.render(data[: len(data) // 2], style(), np.zeros((16, 24), np.uint8))


def test_render_needs_exactly_one_mask() -> None:
    data, soft_mask = file_of(random_image(2, 3)), np.zeros((1, 1), np.uint8)
    for masks in ({}, {"soft_mask": soft_mask, "mask": np.zeros((2, 3), np.bool_)}):
        with pytest.raises(ValueError, match="either a soft mask or a mask"):
            compositing.render(data, style(), **masks)


def never(uri: str) -> bytes:
    raise AssertionError(uri)


@pytest.mark.parametrize(
    ("text", "background"),
    [
        ("transparent", None),
        ("white", (255, 255, 255)),
        ("black", (0, 0, 0)),
        ("#f0f0f0", (240, 240, 240)),
        ("#0af", (0, 170, 255)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
    ],
)
def test_parse_background_accepts_transparent_and_colors(text: str, background: Any) -> None:
    assert compositing.parse_background(text, never) == background


def test_parse_background_reads_an_image() -> None:
    data = file_of(random_image(4, 5))
    assert compositing.parse_background("a.png", {"a.png": data}.__getitem__) == data


@pytest.mark.parametrize("text", ["#12345678", "whitish", "a.png", "none.png"])
def test_an_invalid_background_is_an_input_error(text: str) -> None:
    def read(uri: str) -> bytes:
        if uri != "a.png":
            raise InputError(f"{uri}: no such file")
        return b"not an image"

    with pytest.raises(InputError, match=f"--background {text}: neither"):
        compositing.parse_background(text, read)


@pytest.mark.parametrize("mask_only", [False, True])
def test_soft_edges_of_a_mask_are_those_of_smooth_alpha_without_the_background(
    mask_only: bool,
) -> None:
    """The car is dark, the background pale: its color must not remain in the edge."""
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:60] = True
    pixels = np.where(mask[..., None], 20, 230).astype(np.uint8).repeat(3, axis=2)
    data = file_of(Image.fromarray(pixels))
    file = compositing.render(data, style(mask_only=mask_only), mask=mask)
    if mask_only:
        assert np.array_equal(np.asarray(opened(file)), smooth_alpha(mask))
        return
    result = np.asarray(opened(file))
    assert np.array_equal(result[..., 3], smooth_alpha(mask))
    outside = (result[..., 3] > 0) & ~mask
    assert outside.any()
    assert result[outside, :3].max() < 110, "the background alone is 230"
