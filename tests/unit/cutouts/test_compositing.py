"""Cut-outs: alpha keeps its laws, colours are what arithmetic says, whatever size and format."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from carvana_ray import images
from carvana_ray.cutouts import compositing as cutout
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.errors import BadImageError, InputError

SIZES = [(1280, 1918, 4), (61, 35, 2), (33, 47, 8), (9, 1, 4), (1, 1, 8), (16, 24, 1)]


def style(**changes: Any) -> CutoutStyle:
    plain: dict[str, Any] = {"soft": True, "background": None, "format": "png", "mask_only": False}
    return CutoutStyle(**{**plain, **changes})


def shares(height: int, width: int, downscale: int, seed: int = 0) -> np.ndarray:
    """Return random shares of car, of which many are all, none, and next to a half."""
    rng = np.random.default_rng(seed)
    h, w = images.grid_size(height, width, downscale)
    return rng.choice(np.array([0, 0, 1, 126, 127, 128, 129, 254, 255, 255], np.uint8), (h, w))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
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
    image = opened(data)  # WebP leaves alpha out where all is car
    return np.asarray(image.convert("RGBA").getchannel("A"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_soft_alpha_is_128_and_more_exactly_where_the_mask_is(
    size: tuple[int, int, int], seed: int
) -> None:
    share = shares(*size, seed)
    alpha = cutout.soft_alpha(share, *size[:2])
    assert alpha.dtype == np.uint8
    assert np.array_equal(alpha >= 128, images.enlarge(share, *size[:2]))


@pytest.mark.parametrize("level", range(256))
def test_soft_alpha_has_twice_the_contrast_of_the_share(level: int) -> None:
    share = np.full((3, 5), level, np.uint8)
    assert (cutout.soft_alpha(share, 12, 18) == min(max(2 * level - 128, 0), 255)).all()


def test_a_half_exactly_is_no_car_in_either() -> None:
    share = np.array([[127, 128]], np.uint8)  # at the middle between the two, 127.5
    smooth = images.upsample(share, 3, 6)
    assert (smooth == 127.5).any() == (images.infer_downscale(3, 6, 1, 2) % 2 == 1)
    for downscale in (1, 2, 4, 8):
        size = downscale, 2 * downscale
        soft = cutout.soft_alpha(share, *size)
        assert np.array_equal(soft >= 128, images.enlarge(share, *size))


def test_hard_alpha_is_the_mask() -> None:
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    alpha = cutout.hard_alpha(mask)
    assert set(np.unique(alpha)) == {0, 255}
    assert np.array_equal(alpha == 255, mask)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_file_of_a_cut_out_has_the_alpha_of_its_mask(
    size: tuple[int, int, int], kind: str
) -> None:
    height, width, _ = size
    share, data = shares(*size), file_of(picture(height, width))
    mask = images.enlarge(share, height, width)
    soft = alpha_of(cutout.render(data, style(format=kind), share, None))
    hard = alpha_of(cutout.render(data, style(format=kind, soft=False), share, None))
    rows = alpha_of(cutout.render(data, style(format=kind, soft=False), None, mask))
    assert np.array_equal(soft, cutout.soft_alpha(share, height, width))
    assert np.array_equal(soft >= 128, mask)
    assert np.array_equal(hard, cutout.hard_alpha(mask))
    assert np.array_equal(rows, hard)


@pytest.mark.parametrize("size", SIZES)
def test_a_hard_cut_out_has_the_pictures_own_pixels(size: tuple[int, int, int]) -> None:
    height, width, _ = size
    share, image = shares(*size), picture(height, width)
    found = opened(cutout.render(file_of(image), style(soft=False), share, None))
    pixels, mask = np.asarray(found), images.enlarge(share, height, width)
    assert np.array_equal(pixels[mask][:, :3], np.asarray(image)[mask])
    assert (pixels[~mask] == 0).all(), "nothing of the background is in the file"


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_alone_has_one_bit_or_the_alpha(size: tuple[int, int, int]) -> None:
    share, data = shares(*size), file_of(picture(*size[:2]))
    hard = opened(cutout.render(data, style(mask_only=True, soft=False), share, None))
    assert hard.mode == "1"
    assert np.array_equal(np.asarray(hard), images.enlarge(share, *size[:2]))
    soft = opened(cutout.render(data, style(mask_only=True), share, None))
    assert soft.mode == "L"
    assert np.array_equal(np.asarray(soft), cutout.soft_alpha(share, *size[:2]))


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), (200, 3, 160)])
def test_a_coloured_background_is_laid_under_by_alpha(ground: tuple[int, int, int]) -> None:
    image = picture(40, 50)
    alpha = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    found = np.asarray(cutout.composite(image, alpha, ground))
    a = alpha[..., None].astype(int)
    exact = (a * np.asarray(image).astype(int) + (255 - a) * np.array(ground)) / 255
    assert np.array_equal(found, np.rint(exact))


def test_a_picture_is_laid_under_by_alpha() -> None:
    image, ground = picture(40, 50), picture(40, 50, seed=2)
    alpha = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    found = np.asarray(cutout.composite(image, alpha, file_of(ground)))
    a = alpha[..., None].astype(int)
    exact = (a * np.asarray(image).astype(int) + (255 - a) * np.asarray(ground).astype(int)) / 255
    assert np.array_equal(found, np.rint(exact))


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (20, 20), (1, 1), (7, 90)])
def test_a_background_covers_any_size_by_its_middle(size: tuple[int, int]) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = (0, 255, 0)
    found = cutout.fit_background(file_of(Image.fromarray(pixels)), size)
    assert found.size == size
    middle = np.asarray(found)[size[1] // 2, size[0] // 2]
    assert middle[1] > 200


def studio(height: int, width: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a dark disc mixed by a soft alpha with pale ground; alpha; the disc's colour."""
    y, x = np.mgrid[:height, :width]
    far = np.hypot(y - height / 2, x - width / 2) - min(height, width) / 3
    alpha = np.clip(128 - far * 128 / block, 0, 255).astype(np.uint8)
    car, ground = np.array([20.0, 40.0, 90.0]), np.array([230.0, 225.0, 220.0])
    a = alpha[..., None] / 255
    return np.rint(a * car + (1 - a) * ground).astype(np.uint8), alpha, car


@pytest.mark.parametrize("block", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(120, 150), (61, 77)])
def test_spreading_brings_edges_nearer_to_the_car_and_touches_nothing_else(
    block: int, size: tuple[int, int]
) -> None:
    pixels, alpha, car = studio(*size, block)
    found = np.asarray(cutout.decontaminate_edges(Image.fromarray(pixels), alpha, block)).astype(
        float
    )
    edge = (alpha > 0) & (alpha < 255)
    assert np.array_equal(found[~edge], pixels[~edge])
    before = np.abs(pixels[edge] - car).max(-1)
    after = np.abs(found[edge] - car).max(-1)
    assert (after <= before + 2).all()
    assert after.mean() < 0.5 * before.mean()


def test_spreading_leaves_what_has_no_car_near() -> None:
    pixels, alpha, _ = studio(90, 90, 4)
    faint = np.minimum(alpha, cutout.OPAQUE_FROM - 1)
    found = cutout.decontaminate_edges(Image.fromarray(pixels), faint, 4)
    assert np.array_equal(np.asarray(found), pixels)


@pytest.mark.parametrize("fill", [0, 255])
def test_spreading_has_nothing_to_do_without_edges(fill: int) -> None:
    image = picture(20, 30)
    found = cutout.decontaminate_edges(image, np.full((20, 30), fill, np.uint8), 4)
    assert np.array_equal(np.asarray(found), np.asarray(image))


def test_spreading_a_single_colour_keeps_it() -> None:
    _, alpha, _ = studio(80, 100, 4)
    image = Image.new("RGB", (100, 80), (90, 30, 200))
    found = np.asarray(cutout.decontaminate_edges(image, alpha, 4)).astype(int)
    assert np.abs(found - np.array((90, 30, 200))).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_every_kind_of_picture_is_cut_out_in_its_colours(kind: str, mode: str) -> None:
    if (kind, mode) in {("JPEG", "P"), ("PNG", "CMYK"), ("WEBP", "P"), ("WEBP", "CMYK")}:
        pytest.skip("there is no such file")
    image = Image.new("RGB", (35, 21), (200, 80, 40)).convert(mode)
    data = file_of(image, kind)
    found = opened(cutout.render(data, style(), np.full((6, 9), 255, np.uint8), None))
    assert (found.mode, found.size) == ("RGBA", (35, 21))
    expected = np.asarray(opened(data).convert("RGB")).astype(int)
    assert np.abs(np.asarray(found)[..., :3] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("ground", [None, (255, 255, 255)])
def test_orientation_and_colour_profile_are_kept_and_no_place(
    kind: str, ground: tuple[int, int, int] | None
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "somebody"
    data = file_of(picture(20, 32), "JPEG", exif=exif.tobytes(), icc_profile=profile)
    asked = style(format=kind, background=ground)
    found = opened(cutout.render(data, asked, np.full((5, 8), 255, np.uint8), None))
    assert found.size == (32, 20), "the pixels are those stored"
    assert dict(found.getexif()) == {ExifTags.Base.Orientation: 6}
    assert found.info["icc_profile"] == profile


def test_a_profile_of_other_channels_is_not_kept() -> None:
    data = file_of(Image.new("L", (32, 20), 9), "PNG", icc_profile=b"of gray")
    found = opened(cutout.render(data, style(), np.full((5, 8), 255, np.uint8), None))
    assert "icc_profile" not in found.info


def test_a_picture_that_ends_early_is_a_bad_one() -> None:
    data = file_of(picture(64, 96), "JPEG")
    with pytest.raises(BadImageError, match="truncated"):
        cutout.render(data[: len(data) // 2], style(), np.zeros((16, 24), np.uint8), None)


def never(uri: str) -> bytes:
    raise AssertionError(uri)


@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("transparent", None),
        ("white", (255, 255, 255)),
        ("black", (0, 0, 0)),
        ("#f0f0f0", (240, 240, 240)),
        ("#0af", (0, 170, 255)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
    ],
)
def test_a_background_is_transparent_or_a_colour(text: str, ground: Any) -> None:
    assert cutout.parse_background(text, never) == ground


def test_a_background_is_a_picture() -> None:
    data = file_of(picture(4, 5))
    assert cutout.parse_background("a.png", {"a.png": data}.__getitem__) == data


@pytest.mark.parametrize("text", ["#12345678", "whitish", "a.png", "none.png"])
def test_what_is_no_background_is_an_input_error(text: str) -> None:
    def read(uri: str) -> bytes:
        if uri != "a.png":
            raise InputError(f"{uri}: no such file")
        return b"no picture"

    with pytest.raises(InputError, match=f"--background {text}: neither"):
        cutout.parse_background(text, read)
