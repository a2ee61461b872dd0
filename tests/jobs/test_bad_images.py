"""Bad and odd files: each has its verdict, and no damage brings anything else to light."""

import io
import json
import random
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from support import corpus
from support.corpus import OK, Case

from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.images import validate as formats
from carvana_ray.stages.ingest import read_images as reading

WORDS = (
    "not-an-image",
    "truncated",
    "too-large",
    "mode",
    "animated",
    "mask-values",
    "checksum",
    "wrong-size",
)
MUTATIONS, FLIPS = 2000, 400
BOMBS = [name for name, case in corpus.cases().items() if case.expected == "too-large"]
MOST_MB = 400


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Fail a test that runs for a minute, by what no reader takes for damage."""

    def stop(*_: object) -> None:
        pytest.fail("reading hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def remarks() -> Iterator[list[warnings.WarningMessage]]:
    """All that is warned of; must be empty in the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    assert [str(one.message) for one in caught] == []


def first_word(error: object) -> str:
    return str(error).split(":")[0]


def verdict(case: Case) -> tuple[str, np.ndarray | None]:
    """Read a file; return `OK` and what it holds, or the first word of the reason, and nothing."""
    try:
        formats.require_crc(case.data, case.crc32)
        if case.read_as == "mask":
            return OK, images.load_mask(case.data)
        if case.read_as == "jpeg":
            formats.open_image(case.data, formats=("JPEG",))
        return OK, images.load_gray(case.data, 4)
    except BadImageError as bad:
        return first_word(bad), None


def rows(cases: dict[str, Case], folder: Path, size: tuple[int, int] | None) -> list[str]:
    """Return the statuses of files that are read as the pictures of one block."""
    for name, case in cases.items():
        (folder / name).write_bytes(case.data)
    crcs = {name: case.crc32 for name, case in cases.items() if case.crc32 is not None}
    batch = {}
    for key, value in reading.block_row("block", list(cases), crcs).items():
        batch[key] = np.empty(1, dtype=object)
        batch[key][0] = value
    loaded = reading.read_images(batch, reading.ReadOptions(str(folder), 4, size, corpus.SIZE))
    return [first_word(status) for status in loaded["status"]]


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    cases = corpus.cases()
    assert len(cases) >= 37
    assert {case.expected for case in cases.values()} == {OK, *WORDS}


@pytest.mark.parametrize("name", [n for n, c in corpus.cases().items() if c.read_as != "full"])
def test_each_file_has_its_verdict(
    name: str, remarks: list[warnings.WarningMessage], no_hang: None
) -> None:
    case = corpus.cases()[name]
    found, pixels = verdict(case)
    assert found == case.expected
    if pixels is not None and case.read_as == "mask":
        assert np.count_nonzero(pixels != corpus.right_mask()) <= case.worst
    elif pixels is not None:
        assert np.abs(pixels - corpus.right_gray(4)).mean() <= case.worst


@pytest.mark.parametrize("downscale", images.DOWNSCALES)
def test_the_verdict_is_the_same_at_every_downscale(downscale: int) -> None:
    for name, case in corpus.cases().items():
        if case.read_as != "picture" or case.expected == "checksum":
            continue
        try:
            images.load_gray(case.data, downscale)
            found = OK
        except BadImageError as bad:
            found = first_word(bad)
        assert found == case.expected, name


def test_pictures_of_another_size_are_rows_with_a_reason(tmp_path: Path) -> None:
    cases = {name: case for name, case in corpus.cases().items() if case.read_as == "full"}
    sizes = [formats.image_size(case.data) for case in cases.values()]
    assert sizes == [(1280, 1918), (1280, 1917), (640, 959), (1918, 1280)]
    assert rows(cases, tmp_path, corpus.FULL_SIZE) == [case.expected for case in cases.values()]
    assert rows(cases, tmp_path, None) == [OK] * len(cases)


def test_every_picture_of_the_corpus_is_one_row_of_its_block(tmp_path: Path) -> None:
    cases = {name: case for name, case in corpus.cases().items() if case.read_as == "picture"}
    assert rows(cases, tmp_path, None) == [case.expected for case in cases.values()]


@pytest.mark.parametrize("name", [n for n, c in corpus.cases().items() if c.expected == "checksum"])
def test_only_the_checksum_tells_these_from_good_pictures(name: str) -> None:
    case = corpus.cases()[name]
    formats.require_crc(case.data, None)
    good = images.load_gray(corpus.jpeg(), 1).astype(int)
    wrong = np.abs(images.load_gray(case.data, 1) - good)
    assert (wrong.max(axis=1) > 8).mean() > 0.1, "the test needs a picture that is visibly wrong"
    with pytest.raises(BadImageError, match=r"^checksum: CRC-32 is [0-9a-f]{8}, crc32.csv says "):
        formats.require_crc(case.data, case.crc32)


def test_every_flipped_bit_is_found_by_the_checksum() -> None:
    data = corpus.jpeg()
    crc = zlib.crc32(data)
    formats.require_crc(data, crc)
    formats.require_crc(data, None)
    found = silent = 0
    for bit in random.Random(1).sample(range(8 * len(data)), FLIPS):
        damaged = corpus.flip(data, bit)
        with pytest.raises(BadImageError, match=r"^checksum: "):
            formats.require_crc(damaged, crc)
        found += 1
        if found <= 100:
            silent += verdict(Case(damaged, OK))[0] == OK
    assert found == FLIPS
    assert silent > 50, "the test needs damage that nothing else finds"


def test_a_checksum_is_written_with_all_its_digits() -> None:
    with pytest.raises(BadImageError, match=r"is 00000000, crc32.csv says 0000000f$"):
        formats.require_crc(b"", 15)


def repaired(png: bytes) -> bytes:
    """Return a PNG whose chunks have right checksums again, so that what they hold is read."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the file with one to four damages, half of them in its headers."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = int(len(result) * rng.random() ** rng.choice([1, 3]))
        kind = rng.choice(["flip", "run", "cut", "insert", "swap"])
        run = rng.choice([bytes, rng.randbytes])(rng.choice([1, 2, 4, 16, 64]))
        if kind == "flip":
            result[at] ^= 1 << rng.randrange(8)
        elif kind == "run":
            result[at : at + len(run)] = run[: len(result) - at]
        elif kind == "cut":
            del result[max(at, 1) :]
        elif kind == "insert":
            result[at:at] = run
        else:
            other = rng.randrange(len(result))
            a, b = sorted((at, other))
            length = min(rng.randrange(1, 20), b - a, len(result) - b)
            result[a : a + length], result[b : b + length] = (
                result[b : b + length],
                result[a : a + length],
            )
    if data.startswith(corpus.MARK) and rng.random() < 0.5:
        return repaired(bytes(result))
    return bytes(result)


def small_files() -> dict[str, bytes]:
    small = corpus.scene().resize((60, 40))
    mask = corpus.mask().resize((60, 40))
    save = corpus.save
    frames = {"save_all": True, "append_images": [small.rotate(90)]}
    return {
        "JPEG": save(small, "JPEG", exif=corpus.exif(6)),
        "progressive JPEG": save(small, "JPEG", progressive=True, comment="car", dpi=(72, 72)),
        "JPEG of two": save(small, "MPO", **frames),
        "PNG": save(small, "PNG", exif=corpus.exif(6), icc_profile=bytes(100)),
        "animated PNG": save(small, "PNG", **frames),
        "palette PNG": save(small.convert("P"), "PNG", transparency=b"\0\x80"),
        "WebP": save(small, "WEBP", exif=corpus.exif(6)),
        "lossless WebP": save(small, "WEBP", lossless=True),
        "GIF mask": save(mask, "GIF", transparency=0, disposal=2, comment=b"mask"),
        "PNG mask": save(mask.convert("1"), "PNG"),
    }


READERS: tuple[Callable[[bytes], object], ...] = (
    lambda data: images.load_gray(data, 4),
    images.load_mask,
    formats.image_size,
    formats.orientation_of,
)


@pytest.mark.parametrize("kind", small_files())
def test_a_damaged_file_is_read_or_refused_with_a_reason_and_nothing_else(
    kind: str, remarks: list[warnings.WarningMessage], no_hang: None
) -> None:
    data, rng = small_files()[kind], random.Random(kind)
    verdicts: dict[str, int] = {}
    others: dict[int, str] = {}
    for number in range(MUTATIONS // len(small_files())):
        damaged = mutated(data, rng)
        for read in READERS:
            try:
                read(damaged)
                word = OK
            except BadImageError as bad:
                word = first_word(bad)
            except Exception as error:  # all kinds of it are to be listed
                others[number] = repr(error)
            verdicts[word] = verdicts.get(word, 0) + 1
    assert others == {}
    assert set(verdicts) <= {OK, *WORDS}
    assert verdicts[OK] > 0
    assert sum(verdicts.values()) - verdicts[OK] > 100


MEASURE = """
import json, sys
from pathlib import Path
from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.images import validate

def peak():  # of this process alone; what getrusage says starts from the peak of its parent
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000

good, *bombs = map(Path, sys.argv[1:])
images.load_gray(good.read_bytes(), 4)
before, words = peak(), []
for bomb in bombs:
    for read in (images.load_gray, images.load_mask, validate.image_size, validate.orientation_of):
        try:
            read(bomb.read_bytes())
            words.append("ok")
        except BadImageError as bad:
            words.append(str(bad).split(":")[0])
print(json.dumps({"mb": peak() - before, "words": words}))
"""


def test_a_bomb_takes_neither_memory_nor_a_line_on_standard_error(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(len(BOMBS) + 1)]
    for file, name in zip(files, ["good", *BOMBS], strict=True):
        file.write_bytes(corpus.cases()[name].data)
    command = [sys.executable, "-W", "always", "-c", MEASURE, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    print(f"{len(BOMBS)} bombs: {found['mb']:.0f} MB")
    assert found["mb"] < MOST_MB
    assert set(found["words"]) == {"too-large", "not-an-image"}  # a GIF is no picture, and so on
    assert found["words"].count("too-large") >= 3 * (len(BOMBS) - 3)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (40, 77), (1, 1), (1300, 1300)])
def test_a_bomb_that_is_small_enough_is_a_sound_picture(width: int, height: int) -> None:
    data = corpus.black_png(width, height)
    gray = images.load_gray(data, 1)
    assert gray.shape == (height, width)
    assert not gray.any()


def test_a_warning_turned_into_an_error_changes_no_verdict() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in BOMBS:
            assert verdict(corpus.cases()[name])[0] == "too-large", name
        assert verdict(corpus.cases()["palette PNG, partly transparent"])[0] == OK


def test_filters_that_were_set_after_the_first_reading_bring_no_warning_to_light(
    remarks: list[warnings.WarningMessage],
) -> None:
    images.load_gray(corpus.jpeg(), 4)
    warnings.simplefilter("always")
    for name in ("palette PNG, partly transparent", "PNG that claims 0 frames", *BOMBS):
        verdict(corpus.cases()[name])


def test_many_threads_read_as_one_does(remarks: list[warnings.WarningMessage]) -> None:
    cases = [case for case in corpus.cases().values() if case.read_as != "full"] * 2
    random.Random(0).shuffle(cases)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda case: verdict(case)[0], cases))
    assert found == [case.expected for case in cases]


@pytest.mark.parametrize("read", READERS)
def test_filling_up_cut_files_is_refused_whoever_asked_for_it(
    read: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        read(corpus.cases()["cut to 50 %"].data)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_fault_of_the_file_passes(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(error):
        images.load_gray(corpus.jpeg(), 4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_is_read_and_left_alone(kind: str, order: str, turn: int) -> None:
    small = corpus.scene().resize((60, 40))
    data = corpus.save(small, kind, exif=corpus.exif(turn, order))
    assert formats.orientation_of(data) == turn
    plain = images.load_gray(corpus.save(small, kind), 1)
    assert np.array_equal(images.load_gray(data, 1), plain)


def test_a_picture_without_a_sound_orientation_is_upright() -> None:
    assert formats.orientation_of(corpus.jpeg()) == 1
    assert formats.orientation_of(corpus.jpeg(exif=corpus.exif())) == 1
    for wrong in (0, 9, 255, 65_535):
        assert formats.orientation_of(corpus.jpeg(exif=corpus.exif(wrong))) == 1, wrong
    with pytest.raises(BadImageError, match=r"^not-an-image: "):
        formats.orientation_of(b"<html>")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_damaged_exif_block_is_no_reason_to_refuse_a_picture(order: str) -> None:
    small, block = corpus.scene().resize((60, 40)), corpus.exif(6, order)
    plain = images.load_gray(corpus.save(small, "JPEG"), 4)
    blocks = [block[:length] for length in range(6, len(block))]
    blocks += [corpus.flip(block, bit) for bit in range(48, 8 * len(block))]
    found = set()
    for damaged in blocks:
        data = corpus.save(small, "JPEG", exif=damaged)
        found.add(formats.orientation_of(data))
        assert np.array_equal(images.load_gray(data, 4), plain)
    assert {1, 6} <= found <= set(range(1, 9))


def test_the_orientation_is_read_from_the_header_alone() -> None:
    data = corpus.jpeg(exif=corpus.exif(6))
    assert formats.orientation_of(data[:1000]) == 6


def test_two_pictures_in_one_file_are_the_first_of_them() -> None:
    data = corpus.cases()["two pictures in one JPEG"].data
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.array_equal(images.load_gray(data, 4), images.load_gray(corpus.jpeg(), 4))
