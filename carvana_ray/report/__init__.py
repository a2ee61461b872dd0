"""Results for people: curves, contact sheets, overlays, one HTML page. Bytes out, no files."""

from carvana_ray.report.contact_sheet import (
    Tile,
    coverage,
    load_thumbnail,
    overlay_checkerboard,
    overlay_errors,
    render_sheet,
)
from carvana_ray.report.page import render_page
from carvana_ray.report.training_curves import draw_curves

__all__ = [
    "Tile",
    "coverage",
    "draw_curves",
    "load_thumbnail",
    "overlay_checkerboard",
    "overlay_errors",
    "render_page",
    "render_sheet",
]
