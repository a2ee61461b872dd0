"""Bad pictures: listed whole, named in a sentence, and too many of them end a run."""

import csv
from pathlib import Path
from typing import Any

import pytest

from carvana_ray import config
from carvana_ray.data import quarantine
from carvana_ray.data.quarantine import FailureLimits
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.stages.predict.stage import failure_limits

BAD = [(f"{number}.jpg", f'truncated: "so", {number}', number) for number in range(4)]


def test_all_are_listed_with_their_reasons_and_checksums(tmp_path: Path) -> None:
    uri = quarantine.write_csv(str(tmp_path), BAD)
    with open(uri, newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"img": name, "reason": reason, "crc32": f"{crc:08x}"} for name, reason, crc in BAD
        ]
    quarantine.write_csv(str(tmp_path), BAD[:1])
    assert len(Path(uri).read_text().splitlines()) == 2, "the new list takes the place of the old"


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_sentence_names_the_first_three(count: int) -> None:
    said = quarantine.summarize(BAD[:count], "/runs/quarantine.csv")
    assert said.startswith(f"{count} pictures cannot be used: 0.jpg (truncated")
    assert ("2.jpg" in said) == (count >= 3)
    assert ("..." in said) == (count > 3)
    assert said.endswith("/runs/quarantine.csv")


@pytest.mark.parametrize(
    ("pictures", "flags", "enough"),
    [
        (400, {}, 100),
        (50_000, {}, 500),
        (50_000, {"on_bad_picture": "empty", "max_bad": 2000}, 2000),
        (50_000, {"on_bad_picture": "empty", "max_bad": 7}, 500),
        (50_000, {"max_bad": 2000}, 500),
    ],
)
def test_too_many_bad_pictures_end_the_run_early(
    pictures: int, flags: dict[str, Any], enough: int
) -> None:
    limits = failure_limits(config.PredictFlags(**flags), "/photos", pictures)
    limits.count_bad(enough, "w.jpg (not-an-image)")
    with pytest.raises(InputError, match=rf"/photos: {enough + 1} bad pictures so far.*x\.jpg"):
        limits.count_bad(enough + 1, "x.jpg (not-an-image)")


def test_a_problem_waits_for_the_end_and_some_of_them_are_it() -> None:
    limits = FailureLimits("/photos", 9, "cut-outs")
    limits.raise_if_failed()
    for number in range(quarantine.PROBLEMS - 1):
        limits.add_failure(f"{number}.jpg (unreachable)")
    with pytest.raises(IncompleteError, match=rf"{quarantine.PROBLEMS} cut-outs .* for 0\.jpg"):
        limits.add_failure("last")
    with pytest.raises(IncompleteError, match="run again to go on"):
        limits.raise_if_failed()
