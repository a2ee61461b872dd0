"""Results for people: curves, contact sheets, overlays, one HTML page. Bytes out, no files."""

from carvana_ray.report.curves import curves
from carvana_ray.report.page import page
from carvana_ray.report.tiles import Tile, cut_out, errors, sheet, shrink_to, thumbnail

__all__ = ["Tile", "curves", "cut_out", "errors", "page", "sheet", "shrink_to", "thumbnail"]
