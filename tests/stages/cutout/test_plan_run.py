"""The settings of a folder of cut-outs."""

from dataclasses import replace
from typing import Any

import pytest

from carvana_ray import config
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.framing import Frame
from carvana_ray.stages.cutout import plan_run

STYLE = CutoutStyle(soft=False, background=None, format="png", mask_only=False)


def test_a_shadow_is_a_setting_of_the_index_only_where_it_is_used() -> None:
    flags = config.CutoutFlags(data="photos", submission="rows.csv")
    plain, shadowed = (
        plan_run._settings(flags, replace(STYLE, shadow=kind), None) for kind in ("none", "soft")
    )
    assert shadowed == {**plain, "shadow": "soft"}
    assert "shadow" not in plain


@pytest.mark.parametrize(
    ("flags", "frame", "settings"),
    [
        ({}, None, {}),
        (
            {"frame": "catalogue"},
            Frame("catalogue", (1600, 1200), 0.05),
            {"frame": "catalogue", "size": "1600x1200", "margin": 0.05},
        ),
        (
            {"frame": "car", "margin": 0.1},
            Frame("car", None, 0.1),
            {"frame": "car", "size": "that of the car", "margin": 0.1},
        ),
        (
            {"frame": "car", "size": "800X600"},
            Frame("car", (800, 600), 0.05),
            {"frame": "car", "size": "800x600", "margin": 0.05},
        ),
    ],
)
def test_the_frame_of_flags_is_a_setting_only_if_it_is_used(
    flags: dict[str, Any], frame: Frame | None, settings: dict[str, Any]
) -> None:
    asked = config.CutoutFlags(data="photos", out="out", submission="rows.csv", **flags)
    assert plan_run.frame_of(asked) == frame
    style = replace(STYLE, frame=frame)
    plain = plan_run._settings(asked, STYLE, None)
    assert plan_run._settings(asked, style, None) == plain | settings
    assert not {"frame", "size", "margin"} & plain.keys()
