"""Counts, bytes and durations in words."""

import pytest

from carvana_ray.runtime.wording import (
    count_of,
    format_bytes,
    format_duration,
    format_rough,
    short_path,
)


def test_a_count_has_its_noun_and_the_part_that_is_done() -> None:
    assert count_of(0, "images") == "0 images"
    assert count_of(1, "images") == "1 image"
    assert count_of(100_064, "images", 256) == "100,064 images, 256 of them already done"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 MB"),
        (12_400_000, "12 MB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1.0 GB"),
        (1_340_000_000, "1.3 GB"),
        (60_700_000_000, "61 GB"),
        (2_000_000_000_000, "2.0 TB"),
    ],
)
def test_bytes_have_their_unit(count: int, said: str) -> None:
    assert format_bytes(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3570, "1 h 00 min"),
        (11_100, "3 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_duration_has_its_unit(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


def test_a_path_below_the_current_folder_is_short() -> None:
    assert short_path("/home/me/runs/a", "/home/me") == "runs/a"
    assert short_path("/home/melissa/a", "/home/me") == "/home/melissa/a"
    assert short_path("s3://bucket/a", "/home/me") == "s3://bucket/a"
    assert short_path("/tmp/a", "/") == "/tmp/a"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "1 min"),
        (500, "8 min"),
        (1400, "25 min"),
        (3500, "1 h"),
        (5400, "1.5 h"),
        (11_000, "3 h"),
        (200_000, "2 days"),
    ],
)
def test_a_forecast_is_rough(seconds: float, said: str) -> None:
    assert format_rough(seconds) == said
