"""Headers, checksums and EXIF orientation of image files."""

import random
import zlib

import numpy as np
import pytest
from PIL import Image
from support.corpus import cases, exif, flip, jpeg, save, scene, sized_jpeg, sized_png
from support.pairs import waves

from carvana_ray.errors import BadImageError
from carvana_ray.images.decode import load_gray
from carvana_ray.images.validate import exif_orientation, image_size, open_image, require_crc

FLIPS = 400


def orientation(data: bytes) -> int:
    return exif_orientation(open_image(data))


def decodes(data: bytes) -> bool:
    try:
        load_gray(data)
    except BadImageError:
        return False
    return True


def test_the_size_of_an_image_is_height_and_width() -> None:
    assert image_size(save(waves(20, 30))) == (20, 30)
    assert image_size(save(waves(20, 30), "PNG")) == (20, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not-an-image", id="empty"),
        pytest.param(b"\xff\xd8", "not-an-image", id="first bytes of a JPEG"),
        pytest.param(b"<!doctype html><title>404</title>", "not-an-image", id="HTML"),
        pytest.param(b"\0" * 5000, "not-an-image", id="zeros"),
        pytest.param(save(np.zeros((8, 8), np.uint8), "GIF"), "not-an-image", id="GIF"),
        pytest.param(save(np.zeros((8, 8), np.float32), "TIFF"), "mode", id="TIFF of floats"),
        pytest.param(
            save(Image.new("1", (8, 8)), "TIFF", compression="group4"), "mode", id="fax in a TIFF"
        ),
        pytest.param(
            save(
                Image.new("L", (8, 8)),
                "TIFF",
                save_all=True,
                append_images=[Image.new("L", (8, 8))],
            ),
            "animated",
            id="TIFF of two pages",
        ),
        pytest.param(sized_png(100_000, 100_000), "too-large", id="bomb, PNG"),
        pytest.param(sized_jpeg(65_000, 65_000), "too-large", id="bomb, JPEG"),
        pytest.param(sized_png(9_000, 9_000), "too-large", id="PNG that Pillow would read"),
        pytest.param(sized_jpeg(9_000, 9_000), "too-large", id="JPEG that Pillow would read"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=f"^{reason}: "):
        load_gray(data, 4)
    with pytest.raises(BadImageError, match=f"^{reason}: "):
        image_size(data)


def test_one_row_more_than_the_limit_is_refused() -> None:
    assert image_size(sized_png(2**13, 2**13)) == (2**13, 2**13)
    with pytest.raises(BadImageError, match=r"^too-large: "):
        image_size(sized_png(2**13, 2**13 + 1))


def test_images_of_64_megapixels_are_within_the_limit() -> None:
    for width, height in ((9248, 6936), (8064, 6048), (8000, 8000)):
        assert image_size(sized_jpeg(width, height)) == (height, width)


@pytest.mark.parametrize("name", [n for n, c in cases().items() if c.expected == "checksum"])
def test_only_the_checksum_detects_this_damage(name: str) -> None:
    case = cases()[name]
    require_crc(case.data, None)
    good = load_gray(jpeg(), 1).astype(int)
    wrong = np.abs(load_gray(case.data, 1) - good)
    assert (wrong.max(axis=1) > 8).mean() > 0.1, "the test needs an image that is visibly wrong"
    with pytest.raises(BadImageError, match=r"^checksum: CRC-32 is [0-9a-f]{8}, crc32.csv says "):
        require_crc(case.data, case.crc32)


def test_the_checksum_detects_every_flipped_bit() -> None:
    data = jpeg()
    crc = zlib.crc32(data)
    require_crc(data, crc)
    require_crc(data, None)
    found = silent = 0
    for bit in random.Random(1).sample(range(8 * len(data)), FLIPS):
        damaged = flip(data, bit)
        with pytest.raises(BadImageError, match=r"^checksum: "):
            require_crc(damaged, crc)
        found += 1
        if found <= 100:
            silent += decodes(damaged)
    assert found == FLIPS
    assert silent > 50, "the test needs damage that decoders do not detect"


def test_a_checksum_is_shown_with_all_its_digits() -> None:
    with pytest.raises(BadImageError, match=r"is 00000000, crc32.csv says 0000000f$"):
        require_crc(b"", 15)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_is_read_but_not_applied(kind: str, order: str, turn: int) -> None:
    small = scene().resize((60, 40))
    data = save(small, kind, exif=exif(turn, order))
    assert orientation(data) == turn
    plain = load_gray(save(small, kind), 1)
    assert np.array_equal(load_gray(data, 1), plain)


def test_an_image_without_a_valid_orientation_is_upright() -> None:
    assert orientation(jpeg()) == 1
    assert orientation(jpeg(exif=exif())) == 1
    for wrong in (0, 9, 255, 65_535):
        assert orientation(jpeg(exif=exif(wrong))) == 1, wrong
    with pytest.raises(BadImageError, match=r"^not-an-image: "):
        orientation(b"<html>")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_damaged_exif_block_does_not_matter(order: str) -> None:
    small, block = scene().resize((60, 40)), exif(6, order)
    plain = load_gray(save(small, "JPEG"), 4)
    blocks = [block[:length] for length in range(6, len(block))]
    blocks += [flip(block, bit) for bit in range(48, 8 * len(block))]
    found = set()
    for damaged in blocks:
        data = save(small, "JPEG", exif=damaged)
        found.add(orientation(data))
        assert np.array_equal(load_gray(data, 4), plain)
    assert {1, 6} <= found <= set(range(1, 9))


def test_the_orientation_is_read_from_the_header_alone() -> None:
    data = jpeg(exif=exif(6))
    assert orientation(data[:1000]) == 6
