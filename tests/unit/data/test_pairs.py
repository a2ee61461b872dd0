"""Images and their masks by name: suffixes, letter case, Unicode form, and what is not clear."""

import random
import unicodedata

import pytest

from carvana_ray.data.pairs import MASK_SUFFIXES, UnpairedError, pair_with_masks
from carvana_ray.errors import InputError


def test_images_are_paired_with_gif_and_png_masks_in_order_of_name() -> None:
    masks = ["a_02_mask.png", "a_01_mask.gif", "z_09_mask.gif", "notes.txt"]
    assert pair_with_masks(["a_02.jpg", "a_01.jpg"], masks) == [
        ("a_01.jpg", "a_01_mask.gif"),
        ("a_02.jpg", "a_02_mask.png"),
    ]


def test_an_image_without_mask_is_named() -> None:
    with pytest.raises(InputError) as caught:
        pair_with_masks(["a_01.jpg", "a_02.jpg"], ["a_01_mask.gif"])
    assert "a_02.jpg" in str(caught.value)
    assert "a_01.jpg" not in str(caught.value)
    assert "1 of 2" in str(caught.value)
    assert "a_02_mask" in str(caught.value)


def test_three_of_many_images_without_mask_are_named_and_all_are_counted() -> None:
    with pytest.raises(InputError) as caught:
        pair_with_masks([f"a_{view:02d}.jpg" for view in range(1, 17)], [])
    message = str(caught.value)
    assert all(f"a_{view:02d}.jpg" in message for view in (1, 2, 3))
    assert "a_04.jpg" not in message
    assert "16 of 16" in message
    assert "\n" not in message


def test_three_images_without_mask_need_no_dots() -> None:
    with pytest.raises(InputError) as caught:
        pair_with_masks(["a_01.jpg", "a_02.jpg", "a_03.jpg"], [])
    assert "..." not in str(caught.value)


@pytest.mark.parametrize("suffix", MASK_SUFFIXES)
@pytest.mark.parametrize("stem", ["a_01_mask", "a_01"])
def test_a_mask_may_have_any_suffix_and_the_image_s_own_name(suffix: str, stem: str) -> None:
    for name in (stem + suffix, stem + suffix.upper()):
        assert pair_with_masks(["a_01.jpg"], [name, "b_01.txt"]) == [("a_01.jpg", name)]


@pytest.mark.parametrize(
    ("masks", "taken"),
    [
        (["a_mask.jpg", "a_mask.png"], "a_mask.png"),
        (["a.png", "a_mask.jpg"], "a_mask.jpg"),
        (["a_mask.bmp", "a_mask.gif"], "a_mask.gif"),
        (["a.jpg", "a.png"], "a.png"),
        (["A_mask.png", "a_mask.png"], "a_mask.png"),
        (["A_mask.gif", "a_mask.jpg"], "a_mask.jpg"),
    ],
)
def test_of_several_masks_the_better_name_is_taken(masks: list[str], taken: str) -> None:
    for order in (masks, masks[::-1]):
        assert pair_with_masks(["a.jpg"], order) == [("a.jpg", taken)]


NAMES = ["K\u00e4fer_01", "Stra\u00dfe", "\u00c5ngstr\u00f6m", "plain"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_case_and_unicode_form_do_not_part_a_pair(name: str, form: str, change: type[str]) -> None:
    image, mask = f"{name}.jpg", unicodedata.normalize(form, change(name + "_mask.png"))
    assert pair_with_masks([image], [mask, "other_mask.png"]) == [(image, mask)]


def test_two_masks_of_an_image_are_named() -> None:
    masks = ["a_mask.gif", "a_mask.png", "b_mask.png", "B_MASK.PNG"]
    with pytest.raises(UnpairedError, match=r"the mask of 1 .* clear: a\.jpg: ") as error:
        pair_with_masks(["a.jpg", "b.jpg"], masks)
    assert error.value.faults == [("a.jpg", "several masks: a_mask.gif, a_mask.png; keep one")]


def test_a_mask_of_two_images_that_differ_in_case_is_named() -> None:
    with pytest.raises(UnpairedError, match="also that of") as error:
        pair_with_masks(["a_01.jpg", "A_01.jpg"], ["a_01_mask.png"])
    assert [name for name, _ in error.value.faults] == ["A_01.jpg"]
    assert pair_with_masks(["a.jpg", "a.png"], ["a_mask.png"]) == [
        ("a.jpg", "a_mask.png"),
        ("a.png", "a_mask.png"),
    ]


def test_all_faults_are_in_the_error_and_three_in_its_line() -> None:
    images = [f"{number:02d}.jpg" for number in range(20)]
    with pytest.raises(UnpairedError) as error:
        pair_with_masks(images, ["mask of 00.png"])
    assert [name for name, _ in error.value.faults] == images
    assert "20 of 20" in str(error.value)
    assert "has other masks, such as mask of 00.png" in str(error.value)
    assert "\n" not in str(error.value)


def test_pairs_do_not_depend_on_the_order_of_the_files() -> None:
    rng = random.Random(0)
    images = [f"car {number}.jpg" for number in range(30)]
    masks = [f"car {number}_mask.png" for number in range(30)] + ["car 3.png", "x_mask.gif"]
    expected = [(name, name.replace(".jpg", "_mask.png")) for name in sorted(images)]
    for _ in range(5):
        rng.shuffle(images)
        rng.shuffle(masks)
        assert pair_with_masks(images, masks) == expected
