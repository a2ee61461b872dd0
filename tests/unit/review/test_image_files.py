"""The files of one image: the mask lies on the pixels that an editor shows."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.corpus import exif
from support.reviews import blob, photo, png

from carvana_ray import images, rle
from carvana_ray.errors import BadImageError
from carvana_ray.images.outline import COLORS, draw_outline
from carvana_ray.review.image_files import ImageFiles, make_files
from carvana_ray.review.listed import ListedImage
from carvana_ray.review.shape import measure


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def made(name: str, data: bytes, mask: Any, corrected: bytes | None = None) -> ImageFiles:
    text = rle.encode(mask)
    shape = measure(text, *mask.shape)
    listed = ListedImage(5, name, "reason", 1, shape.area, round(shape.perimeter_ratio, 3))
    return make_files(listed, data, text, corrected)


def test_an_image_keeps_its_bytes_and_its_mask_has_its_pixels() -> None:
    mask, data = blob(1), photo(1)
    files = made("a.b.jpg", data, mask)
    assert (files.name, files.image, files.problem) == ("a.b.jpg", data, "")
    shown = opened(files.mask)
    assert (shown.format, shown.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(shown), np.where(mask, 255, 0))
    assert np.array_equal(images.load_mask(files.mask), mask)
    outline = opened(files.outline)
    assert outline.mode == "RGBA"
    expected = np.array(COLORS, dtype=np.uint8)[draw_outline(mask)]
    assert np.array_equal(np.asarray(outline), expected)
    image, annotation = files.entry
    assert image["file_name"] == "a.b.jpg"
    assert annotation
    assert annotation["area"] == mask.sum()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_image_is_written_as_it_is_stored(orientation: int) -> None:
    data = photo(1, exif=exif(orientation))
    files = made("a.jpg", data, blob(1))
    shown = opened(files.image)
    assert files.name == files.entry[0]["file_name"] == "a.png"
    assert shown.format == "PNG"
    assert not shown.getexif()
    assert np.array_equal(np.asarray(shown), np.asarray(opened(data)))
    assert opened(files.mask).size == shown.size


def test_a_turned_image_keeps_transparency_and_color_profile() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*blob(1).shape, 4), dtype=np.uint8)
    file = io.BytesIO()
    options = {"lossless": True, "exact": True, "exif": exif(6), "icc_profile": b"a profile"}
    Image.fromarray(pixels).save(file, "WEBP", **options)
    shown = opened(made("a.webp", file.getvalue(), blob(1)).image)
    assert np.array_equal(np.asarray(shown), pixels)
    assert shown.info["icc_profile"] == b"a profile"


def test_a_corrected_mask_is_shown_but_not_among_the_files() -> None:
    mask, better = blob(1), blob(3)
    files = made("a.jpg", photo(1), mask, png(better))
    assert np.array_equal(images.load_mask(files.mask), mask)
    assert np.array_equal(np.asarray(opened(files.outline))[..., 3] > 0, draw_outline(better) > 0)
    assert files.entry[1]
    assert files.entry[1]["area"] == better.sum()


@pytest.mark.parametrize(
    ("corrected", "problem"),
    [
        (b"no image", "not-an-image"),
        (png(blob(1, (61, 40))), "wrong-size: 40 x 61 pixels, the image has 61 x 40"),
        (png(np.full((40, 61), 77, dtype=np.uint8)), "mask-values"),
    ],
)
def test_a_corrected_mask_that_cannot_be_used_is_named(corrected: bytes, problem: str) -> None:
    files = made("a.jpg", photo(1), blob(1), corrected)
    assert files.problem.startswith(problem)
    assert files.entry[1]
    assert files.entry[1]["area"] == blob(1).sum()


@pytest.mark.parametrize("size", [(61, 40), (40, 60), (40, 62), (20, 30)])
def test_an_image_of_another_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(BadImageError, match="wrong-size"):
        made("a.jpg", photo(1, size), blob(1))
    with pytest.raises(BadImageError, match="not-an-image"):
        made("a.jpg", b"no image", blob(1))


def test_an_empty_mask_is_black() -> None:
    files = made("a.jpg", photo(1), np.zeros((40, 61), dtype=bool))
    assert opened(files.mask).getextrema() == (0, 0)
    assert opened(files.outline).getchannel("A").getextrema() == (0, 0)
    assert files.entry[1] is None
