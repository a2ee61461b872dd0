"""The outline of a mask: yellow along the edge, black around it, nothing else."""

import numpy as np

from carvana_ray.images.outline import COLORS, draw_outline


def test_the_outline_of_a_box() -> None:
    mask = np.zeros((12, 12), dtype=bool)
    mask[4:8, 4:8] = True
    expected = [
        "............",
        "............",
        "....####....",
        "...#yyyy#...",
        "..#yyyyyy#..",
        "..#yy..yy#..",
        "..#yy..yy#..",
        "..#yyyyyy#..",
        "...#yyyy#...",
        "....####....",
        "............",
        "............",
    ]
    found = ["".join(".y#"[index] for index in row) for row in draw_outline(mask)]
    assert found == expected


def test_colors_are_nothing_yellow_and_black() -> None:
    assert [color[3] for color in COLORS] == [0, 255, 255]
    assert COLORS[1][0] > 200 > COLORS[1][2]
    assert COLORS[2][:3] == (0, 0, 0)


def test_an_empty_mask_and_a_full_one_have_no_outline() -> None:
    for mask in (np.zeros((5, 7), dtype=bool), np.ones((5, 7), dtype=bool)):
        assert not draw_outline(mask).any()
