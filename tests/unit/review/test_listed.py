"""Which images are listed, and whether review.csv and the submission belong together."""

from pathlib import Path

import pytest
from support.reviews import blob, predict_masks

from carvana_ray import rle
from carvana_ray.errors import InputError
from carvana_ray.review.listed import iter_masks, read_listed, require_rows

NAMES = ["z.jpg", "Ä 車.png", "a.jpg", "b.jpg"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    masks = {name: blob(seed) for seed, name in enumerate(NAMES)}
    predict_masks(tmp_path, tmp_path / "photos", masks, listed=NAMES[:3])
    return tmp_path


def test_listed_images_come_in_order_with_their_masks(out: Path) -> None:
    listed = read_listed(str(out / "review.csv"))
    assert [(image.number, image.name) for image in listed] == list(enumerate(NAMES[:3], start=1))
    assert [image.mask_name for image in listed] == ["z_mask.png", "Ä 車_mask.png", "a_mask.png"]
    assert (listed[0].reasons, listed[0].pieces) == ("reason of z.jpg", 2)
    submission = str(out / "submission.csv")
    require_rows(submission, listed)
    masks = [(image.name, runs) for image, runs in iter_masks(submission, listed)]
    expected = [(name, rle.encode(blob(NAMES.index(name)))) for name in sorted(NAMES[:3])]
    assert masks == expected


def test_a_person_may_list_more_images_by_hand(out: Path) -> None:
    path = out / "review.csv"
    path.write_text(path.read_text().replace("b.jpg,1.00,0,", "b.jpg,1.00,1,"))
    assert [image.name for image in read_listed(str(path))] == NAMES


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("img,score", "image,score", ["line 1", "img,score"]),
        (",1,reason of a.jpg,", ",1,reason of a.jpg,x", ["line 4", "x"]),
        ("a.jpg,9", "../a.jpg,9", ["unsafe file name", "../a.jpg"]),
        ("a.jpg,9", "z.png,9", ["z.jpg and z.png", "one mask"]),
        ("a.jpg,9", f"{'ä' * 124}.jpg,9", ["too long", "_mask.png"]),
    ],
)
def test_a_damaged_list_is_named_with_its_fault(
    out: Path, old: str, new: str, words: list[str]
) -> None:
    path = out / "review.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        read_listed(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    for word in words:
        assert word in str(caught.value)


def test_missing_files_are_named_with_the_command_that_writes_them(out: Path) -> None:
    listed = read_listed(str(out / "review.csv"))
    for path, call in (
        (out / "none.csv", lambda uri: read_listed(uri)),
        (out / "none.csv", lambda uri: require_rows(uri, listed)),
    ):
        with pytest.raises(InputError, match=r"none\.csv: no such file; predict writes it"):
            call(str(path))


def row(name: str, seed: int) -> str:
    return f"{name},{rle.encode(blob(seed))}\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (row("a.jpg", 2), row("a.jpg", 0), ["the mask of a.jpg has", "of two predictions"]),
        (row("a.jpg", 2), "", ["no row for 1 of 3 listed images", "a.jpg", "--submission"]),
        (row("a.jpg", 2), 2 * row("a.jpg", 2), ["a.jpg has more than one row"]),
        (row("a.jpg", 2), "a.jpg,5 x\n", ["a.jpg: not-a-number"]),
    ],
)
def test_a_submission_of_another_prediction_is_refused(
    out: Path, old: str, new: str, words: list[str]
) -> None:
    path = out / "submission.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        require_rows(str(path), read_listed(str(out / "review.csv")))
    assert str(caught.value).startswith(f"{path}: ")
    for word in words:
        assert word in str(caught.value)
