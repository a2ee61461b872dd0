"""File names: those of Kaggle, and names that are not safe."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray.data import layout
from carvana_ray.errors import InputError


def test_kaggle_names_match_and_similar_names_do_not() -> None:
    assert layout.KAGGLE_NAME.fullmatch("0cdf5b5d0ce1_01.jpg")
    assert layout.KAGGLE_NAME.fullmatch("0cdf5b5d0ce1_16.jpg")
    for name in (
        "0cdf5b5d0ce1_00.jpg",
        "0cdf5b5d0ce1_17.jpg",
        "0cdf5b5d0ce_01.jpg",
        "0cdf5b5d0ceG_01.jpg",
        "0CDF5B5D0CE1_01.jpg",
        "0cdf5b5d0ce1_01.png",
        "0cdf5b5d0ce1_01.jpg\n",
        "x0cdf5b5d0ce1_01.jpg",
    ):
        assert not layout.KAGGLE_NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    [
        "0cdf5b5d0ce1_01.jpg",
        "red car 01.jpg",
        "Käfer grün_02.jpeg",
        "Ka\u0308fer.jpg",
        "car, red.jpg",
        "a.b.c.jpg",
        "a..b.jpg",
        "car=1+1@home-2.jpg",
        "車_01.png",
        "\N{AUTOMOBILE}.webp",
        "#1.jpg",
        "(copy) 'of' \"it\"; 100%.jpg",
        "~a.jpg",
        "_",
        "a",
        "a" * 255,
    ],
)
def test_an_ordinary_name_is_safe(name: str) -> None:
    layout.require_safe_names([name], "here")


HOSTILE = [
    "a\u009b31m.jpg",
    "a\u2028b.jpg",
    "a\u202egpj.exe.jpg",
    "a\u2066b.jpg",
    "",
    ".",
    "..",
    "../x.jpg",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b.jpg",
    "a/",
    "a\\b.jpg",
    "..\\x.jpg",
    ".hidden.jpg",
    "-rf",
    "--out=x.jpg",
    "=cmd()|' /C calc'!A0",
    "+1.jpg",
    "@x.jpg",
    " leading.jpg",
    "\u00a0leading.jpg",
    "\ttab.jpg",
    "in\tside.jpg",
    "new\nline.jpg",
    "end.jpg\n",
    "\nfirst.jpg",
    "car\rriage.jpg",
    "zero\0.jpg",
    "bell\a.jpg",
    "color\x1b[31m.jpg",
    "delete\x7f.jpg",
    "a" * 256,
    "a" * 300,
    "\udcff.jpg",
    "half\ud83d.jpg",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_an_unsafe_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as caught:
        layout.require_safe_names(["a.jpg", name, "b.jpg"], "some folder")
    message = str(caught.value)
    assert message.startswith("some folder: 1 unsafe file name, the first is ")
    assert len(message.splitlines()) == 1
    assert message.isprintable(), "the message must not control the terminal"
    assert len(message) < 400
    message.encode()


def test_all_unsafe_names_are_counted_and_the_first_is_shown() -> None:
    with pytest.raises(InputError, match=r"^x: 2 unsafe file names, the first is '\.\./a\.jpg'"):
        layout.require_safe_names(iter(["b.jpg", "../a.jpg", "c.jpg", "=d.jpg"]), "x")


def test_an_empty_list_of_names_is_safe() -> None:
    layout.require_safe_names([], "x")


@settings(deadline=None, max_examples=200)
@given(name=st.text(max_size=20) | st.text("./\\ab\n=", max_size=8))
def test_a_safe_name_is_one_file_of_the_folder_and_no_formula_or_flag(name: str) -> None:
    try:
        layout.require_safe_names([name], "x")
    except InputError:
        return
    assert os.path.basename(name) == name
    assert os.path.normpath(os.path.join("/folder", name)) == f"/folder/{name}"
    assert name[0] not in "=+-@. \t"
    assert not {"\\", "\n", "\r", "\t", "\0"} & set(name)
    name.encode()
