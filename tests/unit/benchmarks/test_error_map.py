"""Classes, places and counts of wrong pixels, against definitions written out pixel by pixel."""

import error_map
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

HEIGHT, WIDTH = 30, 44


def shape(seed: int) -> NDArray[np.bool_]:
    """A mask with a body, a hole and an island, some of them at the border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    top, left = rng.integers(0, 8, 2)
    mask[top : top + 15, left : left + 25] = True
    mask[top + 4 : top + 9, left + 3 : left + 8] = False
    mask[25, rng.integers(WIDTH)] = True
    return mask


def distances(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The larger of rows and columns from each pixel to the nearest one of the other class."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    found = np.empty(mask.shape, dtype=np.int64)
    for (row, column), value in np.ndenumerate(mask):
        apart = np.maximum(abs(rows - row), abs(columns - column))
        found[row, column] = apart[mask != value].min()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_classes_follow_from_exact_distances(seed: int) -> None:
    mask = shape(seed)
    wanted = np.searchsorted(error_map.DISTANCES, distances(mask))
    both = torch.from_numpy(np.stack([mask, ~mask]))
    assert error_map.distance_classes(both).tolist() == [wanted.tolist()] * 2


def test_without_a_boundary_all_pixels_are_far() -> None:
    found = error_map.distance_classes(torch.zeros(1, 9, 9, dtype=torch.bool))
    assert (found == len(error_map.DISTANCES)).all()


def test_the_line_is_measured_from_the_top_of_the_car() -> None:
    mask = torch.zeros(2, 130, 5, dtype=torch.bool)
    mask[0, 20:121, 2] = True  # rows 20 to 120: the line is 45 rows below the first one
    mask[1, 0:21, 2] = True
    lower = error_map.lower_rows(mask)
    assert lower[0].nonzero()[0].item() == 66
    assert lower[1].nonzero()[0].item() == 10


def test_contrast_is_the_difference_of_means_within_reach() -> None:
    rng = np.random.default_rng(5)
    mask, gray = shape(0), rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    found = error_map.contrast(torch.from_numpy(gray)[None], torch.from_numpy(mask)[None])[0]
    reach = error_map.REACH
    for row, column in np.argwhere(distances(mask) <= error_map.NEAR):
        part = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) :]
        part = part[0], slice(part[1].start, column + reach + 1)
        levels, inside = gray[part].astype(float), mask[part]
        wanted = abs(levels[inside].mean() - levels[~inside].mean())
        assert found[row, column].item() == pytest.approx(wanted, abs=1e-3)


def test_counts_tell_missed_from_false_and_upper_from_lower() -> None:
    truth = np.zeros((HEIGHT, WIDTH), dtype=bool)
    truth[5:26, 10:30] = True  # the line is below row 14
    mask = truth.copy()
    mask[5, 12:15] = False  # three missed in the upper part, next to the boundary
    mask[6, 20] = False  # one missed in the second row of the car
    mask[20, 32] = True  # one false in the lower part, three columns from the car
    mask[2, 43] = True  # one false in the upper part, fourteen columns from the car
    gray = np.where(truth, 100, 200).astype(np.uint8)
    gray[:15] = 100  # no contrast in the upper part
    counts = error_map.count_errors(*(torch.from_numpy(part)[None] for part in (mask, truth, gray)))
    wanted = np.zeros((5, 2, 2))
    wanted[0, 0, 0], wanted[1, 0, 0], wanted[2, 1, 1], wanted[4, 0, 1] = 3, 1, 1, 1
    assert counts["pixels"].tolist() == wanted.tolist()
    low, high = counts["contrast"]
    assert (low[0], high[0]) == (4, 0)
    ring = (distances(truth) == 1).sum()
    assert low[1] + high[1] == ring
    assert 0 < low[1] < ring


def test_all_counts_together_are_the_wrong_pixels() -> None:
    truth = torch.from_numpy(np.stack([shape(1), shape(2)]))
    masks = truth.roll(2, dims=2)
    gray = torch.full(truth.shape, 7, dtype=torch.uint8)
    counts = error_map.count_errors(masks, truth, gray)
    assert counts["pixels"].sum() == (masks ^ truth).sum().item()
    assert counts["pixels"][..., 0].sum() == (truth & ~masks).sum().item()


def part(images: int, pixels: float, views: dict[str, float]) -> dict:
    return {
        "images": images,
        "pixels": np.full((5, 2, 2), pixels).tolist(),
        "contrast": np.full((2, 2), pixels).tolist(),
        "views": views,
    }


def test_joined_errors_are_weighted_by_images() -> None:
    joined = error_map.join_errors(
        [part(30, 2.0, {"2": 0.9, "10": 0.5}), part(10, 6.0, {"2": 0.7})]
    )
    assert joined["images"] == 40
    assert joined["pixels"][4][1][0] == 3.0
    assert joined["views"] == {"2": pytest.approx(0.85), "10": pytest.approx(0.5)}
    assert list(joined["views"]) == ["2", "10"]


def test_the_tables_have_a_row_for_each_candidate() -> None:
    joined = error_map.join_errors([part(1, 100.0, {"1": 0.9})])
    tables = error_map.error_tables({"best": joined, "other": joined})
    assert (
        "| best | 400 | 400 | 400 | 400 | 400 | 2,000 | 1,000 | 1,000 | 1,000 | 1,000 |" in tables
    )
    assert "| other | 50.0% | 100 | 100 | 1.00 | 1.00 |" in tables
    assert "| best | 0.9000 |" in tables
