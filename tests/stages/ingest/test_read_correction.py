"""A corrected mask: its runs are exactly those of the file, or it says why there are none."""

import errno
import hashlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.corpus import save

from carvana_ray import rle
from carvana_ray.errors import (
    BadImageError,
    FileChangedError,
    FileMissingError,
    FileTooLargeError,
    StorageUnavailableError,
)
from carvana_ray.stages.ingest.read_correction import CorrectionFile

SIZE = 20, 30
URI = "/fixed/a_mask.png"


def mask_of(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(1).random(size) < 0.5


def png(mask: np.ndarray) -> bytes:
    return save(Image.fromarray(mask.astype(np.uint8) * 255), "PNG")


def file_of(answer: bytes | Exception, digest: str = "") -> CorrectionFile:
    if not digest and isinstance(answer, bytes):
        digest = hashlib.sha256(answer).hexdigest()[:16]
    return CorrectionFile(URI, digest, answer)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_runs_are_those_of_the_mask_as_stored(orientation: int) -> None:
    bounds = file_of(png(mask_of())).run_bounds(SIZE, orientation)
    assert rle.text_from_bounds(bounds) == rle.encode(mask_of())


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_may_be_empty_or_full(value: int) -> None:
    mask = np.full(SIZE, value, bool)
    bounds = file_of(png(mask)).run_bounds(SIZE, 1)
    assert rle.text_from_bounds(bounds) == rle.encode(mask)


@pytest.mark.parametrize(
    ("size", "orientation", "words"),
    [
        ((20, 31), 1, r"wrong-size: 20 x 31 \(height x width\), expected 20 x 30; correct"),
        ((30, 20), 1, r"wrong-size: 30 x 20 \(height x width\), expected 20 x 30; correct"),
        (
            (30, 20),
            6,
            r"wrong-size: the mask fits the upright image \(30 x 20\), but a corrected mask has "
            r"the pixels as stored \(20 x 30, height x width; EXIF orientation 6\); correct",
        ),
    ],
)
def test_a_mask_of_another_size_is_refused(
    size: tuple[int, int], orientation: int, words: str
) -> None:
    with pytest.raises(BadImageError, match=f"^correction: {URI}: {words}"):
        file_of(png(mask_of(size))).run_bounds(SIZE, orientation)


def test_a_file_that_is_no_mask_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    for data, word in ((png(mask_of())[:60], "truncated"), (save(noise, "PNG"), "mask-values")):
        with pytest.raises(BadImageError, match=f"^correction: {URI}: {word}: .*remove the file$"):
            file_of(data).run_bounds(SIZE, 1)
    with pytest.raises(BadImageError, match=f"^correction: {URI}: too-large: more than"):
        file_of(FileTooLargeError("a")).run_bounds(SIZE, 1)


@pytest.mark.parametrize("answer", [png(mask_of()), FileMissingError("no such file")])
def test_a_mask_that_has_changed_says_nothing_about_the_image(answer: Any) -> None:
    with pytest.raises(FileChangedError) as caught:
        file_of(answer, digest="0" * 16).run_bounds(SIZE, 1)
    assert caught.value.strerror == f"correction {URI}: it changed since it was listed"


def test_a_mask_that_cannot_be_reached_is_named() -> None:
    error = StorageUnavailableError(errno.EIO, "I/O error", URI)
    with pytest.raises(StorageUnavailableError) as caught:
        file_of(error).run_bounds(SIZE, 1)
    assert caught.value.strerror == f"correction {URI}: I/O error"
