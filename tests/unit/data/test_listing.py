"""Kinds of files in a folder."""

import importlib.util

import pytest

from carvana_ray.data import listing
from carvana_ray.images import formats


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.TXT", ".txt"),
        ("a.tar.gz", ".gz"),
        ("README", "no suffix"),
        ("a.", "no suffix"),
        (".DS_Store", "system"),
        ("._a.jpg", "system"),
        ("Thumbs.db", "system"),
        ("desktop.ini", "system"),
    ],
)
def test_the_kind_of_a_file_that_is_no_image(name: str, kind: str) -> None:
    assert not listing.is_image(name)
    assert listing.kind_of(name) == kind


@pytest.mark.parametrize("installed", [False, True])
def test_heic_is_an_image_where_its_package_is_installed(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    listing.image_suffixes.cache_clear()
    try:
        assert listing.is_image("IMG_1.HEIC") == installed
        assert listing.is_image("a.jfif")
    finally:
        listing.image_suffixes.cache_clear()


def test_what_is_left_out_is_told_with_the_remedy() -> None:
    skipped = {"folder": 2, ".heic": 3, "system": 1, ".txt": 1, "unsafe name": 1}
    assert listing.describe_skipped(skipped) == (
        f"3 .heic ({formats.HEIC_REMEDY}), 1 .txt, 2 folders, 1 system file, 1 unsafe name"
    )
    assert listing.HEIC_PACKAGE == formats.HEIC_PACKAGE
