"""Bad images: all are listed, a sentence names the first, and too many end a run."""

import csv
from pathlib import Path

import pytest

from carvana_ray.data import quarantine
from carvana_ray.data.quarantine import FailureLimits
from carvana_ray.errors import IncompleteError, InputError, plural

BAD = [(f"{number}.jpg", f'truncated: "so", {number}', number) for number in range(4)]


def test_all_bad_images_are_listed_with_their_reasons_and_checksums(tmp_path: Path) -> None:
    uri = quarantine.write_csv(str(tmp_path), BAD)
    with open(uri, newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"img": name, "reason": reason, "crc32": f"{crc:08x}"} for name, reason, crc in BAD
        ]
    quarantine.write_csv(str(tmp_path), BAD[:1])
    assert len(Path(uri).read_text().splitlines()) == 2, "the new list replaces the old one"


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_summary_names_the_first_three(count: int) -> None:
    text = quarantine.summarize(BAD[:count], "/runs/quarantine.csv")
    assert text.startswith(f"{plural(count, 'image')} cannot be used: 0.jpg (truncated")
    assert ("2.jpg" in text) == (count >= 3)
    assert ("..." in text) == (count > 3)
    assert text.endswith("/runs/quarantine.csv")


@pytest.mark.parametrize(
    ("images", "min_allowed", "limit"),
    [(400, 0, 100), (50_000, 0, 500), (50_000, 7, 500), (50_000, 2000, 2000)],
)
def test_too_many_bad_images_end_the_run_early(images: int, min_allowed: int, limit: int) -> None:
    limits = FailureLimits("/photos", images, "shard", min_allowed)
    limits.count_bad(limit, "w.jpg (not-an-image)")
    with pytest.raises(InputError, match=rf"/photos: {limit + 1} bad images so far.*x\.jpg"):
        limits.count_bad(limit + 1, "x.jpg (not-an-image)")


def test_failures_are_raised_at_the_end() -> None:
    limits = FailureLimits("/photos", 9, "cut-out")
    limits.add_block([], usable=True)
    limits.raise_if_failed()
    for number in range(1000):
        limits.add_block([f"{number}.jpg (unreachable)", "x"], usable=True)
    with pytest.raises(
        IncompleteError, match=r"^2000 cut-outs .* because of 0\.jpg \(.*run again to continue$"
    ):
        limits.raise_if_failed()


def test_only_blocks_in_a_row_without_any_result_end_a_run() -> None:
    """Each has 16 failures, as many as it has images."""
    limits = FailureLimits("/photos", 9, "cut-out")
    for _ in range(3):
        for _ in range(quarantine.MAX_BLOCKS_LOST - 1):
            limits.add_block(["a.jpg (unreachable)"] * 16, usable=False)
        limits.add_block([], usable=True)
    for _ in range(quarantine.MAX_BLOCKS_LOST - 1):
        limits.add_block(["b.jpg (unreachable)"] * 16, usable=False)
    with pytest.raises(IncompleteError, match=r"cut-outs .* because of a\.jpg"):
        limits.add_block(["b.jpg (unreachable)"], usable=False)


def test_the_faults_of_a_training_are_listed_until_there_are_none(tmp_path: Path) -> None:
    uri = quarantine.write_faults(str(tmp_path), [])
    assert not Path(uri).exists()
    faults = [("a.jpg", 'a_mask.png: mask-values: 3, "odd"'), ("b.jpg", "no mask")]
    assert quarantine.write_faults(str(tmp_path), faults) == uri
    with open(uri, newline="") as file:
        assert [tuple(row) for row in csv.reader(file)] == [("img", "reason"), *faults]
    quarantine.write_faults(str(tmp_path), [])
    assert Path(uri).read_text() == "img,reason\n"


def test_only_the_model_s_and_corrected_masks_are_good() -> None:
    statuses = [quarantine.OK, quarantine.CORRECTED, quarantine.CRASH, "correction: a.png: "]
    assert [quarantine.is_good(status) for status in statuses] == [True, True, False, False]
