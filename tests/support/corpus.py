"""Damaged and unusual files, made in memory from one drawn image, each with its expected status.

`cases` returns them by name. All show one scene, so all accepted images have the same expected gray
levels: `right_gray`.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from support.pairs import draw_pair

OK = "ok"
SIZE = (320, 480)
FULL_SIZE = (1280, 1918)
PNG_MAGIC, ADLER_MODULUS = b"\x89PNG\r\n\x1a\n", 65521


@dataclass(frozen=True)
class Case:
    """One file.

    Args:
        data: its bytes.
        expected: `OK`, or the first word of the reason for its refusal.
        read_as: image, jpeg (no other format is accepted), mask, or full (an image that must have
            `FULL_SIZE`).
        crc32: the checksum from before the damage, if it is known.
        tolerance: allowed difference of an accepted file from the expected result: mean gray levels
            of an image, pixels of a mask.
    """

    data: bytes
    expected: str
    read_as: str = "image"
    crc32: int | None = None
    tolerance: float = 1.0


def save(pixels: Image.Image | np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def scene() -> Image.Image:
    """A drawn car in RGB, 320 x 480, with noise; its files are as large as those of photographs."""
    drawn = np.asarray(Image.open(io.BytesIO(draw_pair(7, SIZE)[0])), dtype=np.float64)
    grain = np.random.default_rng(7).normal(0, 25, drawn.shape)
    return Image.fromarray((drawn + grain).clip(0, 255).round().astype(np.uint8))


@cache
def jpeg(**options: Any) -> bytes:
    return save(scene(), "JPEG", quality=95, **options)


@cache
def mask() -> Image.Image:
    """The car's mask in mode P; the car has index 1, which is white."""
    return Image.open(io.BytesIO(draw_pair(7, SIZE)[1])).copy()


def right_mask() -> np.ndarray:
    """The expected result of every accepted mask, bool [320, 480]."""
    return np.asarray(mask()) == 1


def right_gray(downscale: int) -> np.ndarray:
    """The expected result of every accepted image: block means in float64."""
    gray = np.asarray(scene(), dtype=np.float64).mean(axis=-1)
    h, w = (length // downscale for length in SIZE)
    return gray.reshape(h, downscale, w, downscale).mean(axis=(1, 3))


def gray_scene() -> Image.Image:
    return Image.fromarray(np.asarray(scene()).mean(axis=-1).round().astype(np.uint8))


def in_middle(data: bytes, patch: bytes) -> bytes:
    """Return the file with `patch` written over its middle."""
    at = (len(data) - len(patch)) // 2
    return data[:at] + patch + data[at + len(patch) :]


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def cut(data: bytes, fraction: float) -> bytes:
    return data[: int(len(data) * fraction)]


def zero_tail(data: bytes) -> bytes:
    """Return the file with zeros for its last 30 %."""
    return cut(data, 0.7).ljust(len(data), b"\0")


def sized_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(save(Image.new("RGB", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def sized_png(width: int, height: int) -> bytes:
    """A gray PNG whose header claims a size, and that holds next to no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return PNG_MAGIC + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def black_png(width: int, height: int) -> bytes:
    """A valid black PNG of any size, small in memory: one compressed block of rows, repeated."""
    rows = 100 if height % 100 == 0 else max(1, height)
    packer = zlib.compressobj(9)
    block = bytes(rows * (width + 1))
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    later = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    # The Adler-32 checksum of zeros: the low half is 1, the high half is their number.
    total = struct.pack(">HH", height * (width + 1) % ADLER_MODULUS, 1)
    packed = first + later * (height // rows - 1) + zlib.compressobj().flush()[2:-4] + total
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_MAGIC + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a PNG with another chunk after its header."""
    return png[:33] + chunk(kind, body) + png[33:]


def sized_webp(side: int) -> bytes:
    """A small WebP of two frames whose canvas claims to be side x side."""
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = bytearray(save(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


def sized_gif(screen: int, side: int) -> bytes:
    """A GIF of a few bytes whose only frame claims side x side and is cleared after display."""
    start = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    clear = b"!\xf9\x04\x08\0\0\0\0"
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\0"
    return start + clear + frame + b";"


def exif(orientation: int | None = None, order: str = "<") -> bytes:
    block = Image.Exif()
    block.endian = order
    if orientation is not None:
        block[0x0112] = orientation
    block[0x011A], block[0x0128] = 72.0, 2  # resolution and its unit
    return block.tobytes()


def without_numbers(block: bytes) -> bytes:
    """Return an EXIF block whose resolution has no value: the count of its entry is 0."""
    at = block.index(struct.pack("<HHI", 0x011A, 5, 1))
    return block[: at + 4] + bytes(4) + block[at + 8 :]


def damaged_images() -> dict[str, Case]:
    good, crc = jpeg(), zlib.crc32(jpeg())
    png = save(scene(), "PNG")
    webp = save(scene(), "WEBP", quality=95)
    rng = np.random.default_rng(400)
    text = b"<!doctype html><html><head><title>404 Not Found</title></head></html>"
    return {
        "empty file": Case(b"", "not-an-image"),
        "one zero byte": Case(b"\0", "not-an-image"),
        "HTML": Case(text, "not-an-image"),
        "PNG where JPEG is required": Case(png, "not-an-image", "jpeg"),
        "JPEG of zero width": Case(sized_jpeg(0, 480), "not-an-image"),
        "JPEG of zero height": Case(sized_jpeg(480, 0), "not-an-image"),
        "PNG of zero size": Case(black_png(0, 0), "not-an-image"),
        "cut to 10 %": Case(cut(good, 0.1), "truncated"),
        "cut to 50 %": Case(cut(good, 0.5), "truncated"),
        "cut to 90 %": Case(cut(good, 0.9), "truncated"),
        "cut to 99 %": Case(cut(good, 0.99), "truncated"),
        "last 2 bytes cut": Case(good[:-2], "truncated"),
        "last 200 bytes cut": Case(good[:-200], "truncated"),
        "progressive, cut to 50 %": Case(cut(jpeg(progressive=True), 0.5), "truncated"),
        "PNG cut to 50 %": Case(cut(png, 0.5), "truncated"),
        "WebP cut to 50 %": Case(cut(webp, 0.5), "truncated"),
        "last 30 % are zeros": Case(zero_tail(good), "truncated"),
        "progressive, last 30 % are zeros": Case(zero_tail(jpeg(progressive=True)), "truncated"),
        "PNG, last 30 % are zeros": Case(zero_tail(png), "truncated"),
        "PNG, one bit flipped": Case(flip(png, 4 * len(png)), "truncated"),
        "WebP, last 30 % are zeros": Case(zero_tail(webp), "checksum", crc32=zlib.crc32(webp)),
        "one bit flipped": Case(flip(good, 8 * (len(good) // 2) + 3), "checksum", crc32=crc),
        "400 random bytes": Case(in_middle(good, rng.bytes(400)), "checksum", crc32=crc),
        "64 kB of zeros": Case(in_middle(good, bytes(65_536)), "checksum", crc32=crc),
        "JPEG header of 65500 x 65500": Case(sized_jpeg(65_500, 65_500), "too-large"),
        "JPEG header of 12000 x 12000": Case(sized_jpeg(12_000, 12_000), "too-large"),
        "PNG of 20000 x 20000": Case(black_png(20_000, 20_000), "too-large"),
        "PNG of 13300 x 13300": Case(black_png(13_300, 13_300), "too-large"),
        "WebP canvas of 13000 x 13000": Case(sized_webp(13_000), "too-large"),
        "WebP canvas of 60000 x 60000": Case(sized_webp(60_000), "too-large"),
    }


def unusual_images() -> dict[str, Case]:
    good, png = jpeg(), save(scene(), "PNG")
    gray = gray_scene()
    frames = {"save_all": True, "append_images": [scene().rotate(180)]}
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    two = save(scene(), "MPO", quality=95, **frames)
    index = two.index(b"MPF\0") + 4
    pages = {"save_all": True, "append_images": [scene().copy()]}
    return {
        "good": Case(good, OK, crc32=zlib.crc32(good)),
        "PNG named .jpg": Case(png, OK),
        "WebP": Case(save(scene(), "WEBP", lossless=True), OK),
        "garbage after the end": Case(good + b"\xff\xd8garbage" * 100, OK),
        "zeros after the end": Case(good + bytes(5000), OK),
        "gray JPEG": Case(save(gray, "JPEG", quality=95), OK),
        "CMYK JPEG": Case(save(scene().convert("CMYK"), "JPEG", quality=95), OK),
        "progressive JPEG": Case(jpeg(progressive=True), OK),
        "palette PNG": Case(save(gray.convert("P"), "PNG"), OK),
        "palette PNG, partly transparent": Case(
            save(gray.convert("P"), "PNG", transparency=b"\0\x80"), OK
        ),
        "two images in one JPEG": Case(two, OK),
        "two images, damaged index": Case(two[:index] + bytes(60) + two[index + 60 :], OK),
        "EXIF orientation 6": Case(jpeg(exif=exif(6)), OK),
        "EXIF of random bytes": Case(jpeg(exif=b"Exif\0\0II*\0" + bytes(range(200))), OK),
        "EXIF cut short": Case(jpeg(exif=exif(6)[:30]), OK),
        "EXIF resolution without a number": Case(jpeg(exif=without_numbers(exif(6))), OK),
        "PNG that claims 0 frames": Case(with_chunk(png, b"acTL", bytes(8)), OK),
        "16-bit PNG": Case(save(deep, "PNG"), OK),
        "PNG with alpha": Case(save(scene().convert("RGBA"), "PNG"), OK),
        "gray PNG with alpha": Case(save(gray.convert("LA"), "PNG"), OK),
        "TIFF": Case(save(scene().copy(), "TIFF", compression="tiff_lzw"), OK),
        "BMP": Case(save(scene(), "BMP"), OK),
        "AVIF named .jpg": Case(save(scene(), "AVIF", quality=95), OK),
        "TIFF of floats": Case(save(scene().convert("F"), "TIFF"), "mode"),
        "TIFF of two pages": Case(save(scene().copy(), "TIFF", **pages), "animated"),
        "animated PNG": Case(save(scene(), "PNG", **frames), "animated"),
        "animated WebP": Case(save(scene(), "WEBP", **frames), "animated"),
        "full size": Case(draw_pair(7)[0], OK, "full"),
        "1917 x 1280": Case(draw_pair(7, (1280, 1917))[0], "wrong-size", "full"),
        "959 x 640": Case(draw_pair(7, (640, 959))[0], "wrong-size", "full"),
        "portrait": Case(draw_pair(7, (1918, 1280))[0], "wrong-size", "full"),
    }


def masks() -> dict[str, Case]:
    gif = save(mask(), "GIF")
    inverted = Image.fromarray((~right_mask()).astype(np.uint8), "P")
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    between = np.where(right_mask(), 255, 0).astype(np.uint8)
    between[:, :100] = 127
    frames = {"save_all": True, "append_images": [mask().rotate(90)]}
    plain = Image.fromarray(right_mask())
    return {
        name: Case(data, expected, "mask", tolerance=0)
        for name, data, expected in [
            ("mask", gif, OK),
            ("mask with the palette inverted", save(inverted, "GIF"), OK),
            ("PNG mask of 1 bit", save(plain, "PNG"), OK),
            ("empty mask", b"", "not-an-image"),
            ("JPEG mask", save(plain.convert("L"), "JPEG"), OK),
            ("mask cut to 50 %", cut(gif, 0.5), "truncated"),
            ("corrupt mask", in_middle(gif, b"\xff" * 300), "truncated"),
            ("mask, torn in a second frame", gif[:-1] + b",\0\0", "truncated"),
            ("mask, torn in an extension", gif[:-1] + b"!", "truncated"),
            ("mask with the value 127", save(Image.fromarray(between), "GIF"), "mask-values"),
            ("animated mask", save(mask(), "GIF", **frames), "animated"),
            ("animated PNG mask", save(plain.convert("L"), "PNG", **frames), "animated"),
            ("mask with alpha", save(plain.convert("LA"), "PNG"), OK),
            ("image in place of a mask", save(scene(), "PNG"), "mask-values"),
            ("GIF of 13000 x 13000", sized_gif(13_000, 13_000), "too-large"),
            ("GIF frame of 13000 x 13000", sized_gif(10, 13_000), "too-large"),
            ("GIF frame of 65535 x 65535", sized_gif(10, 65_535), "too-large"),
            ("PNG mask of 13300 x 13300", black_png(13_300, 13_300), "too-large"),
        ]
    }


@cache
def cases() -> dict[str, Case]:
    """Return all cases by name."""
    return {**damaged_images(), **unusual_images(), **masks()}
