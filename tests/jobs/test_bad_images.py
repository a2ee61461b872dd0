"""Damaged and unusual image files: each has its status, and no damage raises another error."""

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
from support.blocks import listed
from support.corpus import OK, Case

from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.images import validate
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
MAX_MB = 400


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Fail a test that runs for a minute, with an exception that no reader takes for damage."""

    def stop(*_: object) -> None:
        pytest.fail("reading hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def no_warnings() -> Iterator[None]:
    """Fail a test that warns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in caught] == []


def first_word(error: object) -> str:
    return str(error).split(":")[0]


def read_case(case: Case) -> tuple[str, np.ndarray | None]:
    """Read a file; return (`OK`, pixels), or (first word of the reason, None)."""
    try:
        validate.require_crc(case.data, case.crc32)
        if case.read_as == "mask":
            return OK, images.load_mask(case.data)
        if case.read_as == "jpeg":
            validate.open_image(case.data, formats=("JPEG",))
        return OK, images.load_gray(case.data, 4)
    except BadImageError as bad:
        return first_word(bad), None


def rows(cases: dict[str, Case], folder: Path, size: tuple[int, int] | None) -> list[str]:
    """Return the statuses of files that are read as the images of one block."""
    for name, case in cases.items():
        (folder / name).write_bytes(case.data)
    crcs = {name: case.crc32 for name, case in cases.items() if case.crc32 is not None}
    batch = {}
    entries = listed(folder, list(cases))
    for key, value in reading.block_row("block", entries, crcs).items():
        batch[key] = np.empty(1, dtype=object)
        batch[key][0] = value
    loaded = reading.read_images(batch, reading.ReadOptions(str(folder), 4, size, corpus.SIZE))
    return [first_word(status) for status in loaded["status"]]


def test_the_corpus_has_cases_of_each_status() -> None:
    cases = corpus.cases()
    assert len(cases) >= 37
    assert {case.expected for case in cases.values()} == {OK, *WORDS}


@pytest.mark.parametrize("name", [n for n, c in corpus.cases().items() if c.read_as != "full"])
def test_each_file_has_its_expected_status(name: str, no_warnings: None, no_hang: None) -> None:
    case = corpus.cases()[name]
    found, pixels = read_case(case)
    assert found == case.expected
    if pixels is not None and case.read_as == "mask":
        assert np.count_nonzero(pixels != corpus.right_mask()) <= case.tolerance
    elif pixels is not None:
        assert np.abs(pixels - corpus.right_gray(4)).mean() <= case.tolerance


@pytest.mark.parametrize("downscale", images.DOWNSCALES)
def test_the_status_is_the_same_at_every_downscale(downscale: int) -> None:
    for name, case in corpus.cases().items():
        if case.read_as != "image" or case.expected == "checksum":
            continue
        try:
            images.load_gray(case.data, downscale)
            found = OK
        except BadImageError as bad:
            found = first_word(bad)
        assert found == case.expected, name


def test_images_of_another_size_are_rows_with_a_reason(tmp_path: Path) -> None:
    cases = {name: case for name, case in corpus.cases().items() if case.read_as == "full"}
    sizes = [validate.image_size(case.data) for case in cases.values()]
    assert sizes == [(1280, 1918), (1280, 1917), (640, 959), (1918, 1280)]
    assert rows(cases, tmp_path, corpus.FULL_SIZE) == [case.expected for case in cases.values()]
    assert rows(cases, tmp_path, None) == [OK] * len(cases)


def test_every_image_of_the_corpus_is_one_row_of_its_block(tmp_path: Path) -> None:
    cases = {name: case for name, case in corpus.cases().items() if case.read_as == "image"}
    assert rows(cases, tmp_path, None) == [case.expected for case in cases.values()]


def repaired(png: bytes) -> bytes:
    """Return a PNG with correct checksums of its chunks, so that their content is read."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the file with one to four changes, half of them in its headers."""
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
    if data.startswith(corpus.PNG_MAGIC) and rng.random() < 0.5:
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
    validate.image_size,
    lambda data: validate.exif_orientation(validate.open_image(data)),
)


@pytest.mark.parametrize("kind", small_files())
def test_a_damaged_file_is_read_or_refused_with_a_reason_and_nothing_else(
    kind: str, no_warnings: None, no_hang: None
) -> None:
    data, rng = small_files()[kind], random.Random(kind)
    statuses: dict[str, int] = {}
    others: dict[int, str] = {}
    for number in range(MUTATIONS // len(small_files())):
        damaged = mutated(data, rng)
        for read in READERS:
            try:
                read(damaged)
                word = OK
            except BadImageError as bad:
                word = first_word(bad)
            except Exception as error:  # of any kind: the test lists them all
                others[number] = repr(error)
            statuses[word] = statuses.get(word, 0) + 1
    assert others == {}
    assert set(statuses) <= {OK, *WORDS}
    assert statuses[OK] > 0
    assert sum(statuses.values()) - statuses[OK] > 100


MEASURE = """
import json, sys
from pathlib import Path
from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.images import validate

def peak():  # of this process; getrusage would start from the peak of its parent
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000

def orientation(data):
    return validate.exif_orientation(validate.open_image(data))

good, *bombs = map(Path, sys.argv[1:])
images.load_gray(good.read_bytes(), 4)
before, words = peak(), []
for bomb in bombs:
    for read in (images.load_gray, images.load_mask, validate.image_size, orientation):
        try:
            read(bomb.read_bytes())
            words.append("ok")
        except BadImageError as bad:
            words.append(str(bad).split(":")[0])
print(json.dumps({"mb": peak() - before, "words": words}))
"""


def test_a_decompression_bomb_takes_no_memory_and_prints_nothing(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(len(BOMBS) + 1)]
    for file, name in zip(files, ["good", *BOMBS], strict=True):
        file.write_bytes(corpus.cases()[name].data)
    command = [sys.executable, "-W", "always", "-c", MEASURE, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    print(f"{len(BOMBS)} bombs: {found['mb']:.0f} MB")
    assert found["mb"] < MAX_MB
    assert set(found["words"]) == {"too-large", "not-an-image"}  # a GIF is not an image, and so on
    assert found["words"].count("too-large") >= 3 * (len(BOMBS) - 3)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (40, 77), (1, 1), (1300, 1300)])
def test_a_small_bomb_is_a_valid_image(width: int, height: int) -> None:
    data = corpus.black_png(width, height)
    gray = images.load_gray(data, 1)
    assert gray.shape == (height, width)
    assert not gray.any()


def test_a_warning_turned_into_an_error_changes_no_status() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in BOMBS:
            assert read_case(corpus.cases()[name])[0] == "too-large", name
        assert read_case(corpus.cases()["palette PNG, partly transparent"])[0] == OK


def test_filters_set_after_the_first_read_show_no_warning(
    no_warnings: None,
) -> None:
    images.load_gray(corpus.jpeg(), 4)
    warnings.simplefilter("always")
    for name in ("palette PNG, partly transparent", "PNG that claims 0 frames", *BOMBS):
        read_case(corpus.cases()[name])


def test_many_threads_read_like_one(no_warnings: None) -> None:
    cases = [case for case in corpus.cases().values() if case.read_as != "full"] * 2
    random.Random(0).shuffle(cases)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda case: read_case(case)[0], cases))
    assert found == [case.expected for case in cases]


@pytest.mark.parametrize("read", READERS)
def test_accepting_truncated_files_is_refused(
    read: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        read(corpus.cases()["cut to 50 %"].data)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_errors_that_are_not_the_file_s_fault_are_raised(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(error):
        images.load_gray(corpus.jpeg(), 4)


def test_the_first_of_two_images_in_one_file_is_read() -> None:
    data = corpus.cases()["two images in one JPEG"].data
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.array_equal(images.load_gray(data, 4), images.load_gray(corpus.jpeg(), 4))
