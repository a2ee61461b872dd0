"""Results for people: curves, contact sheets, overlays, one HTML page. Bytes out, no files."""

from carvana_ray.report.contact_sheet import Tile, cut_out, errors, sheet, shrink_to, thumbnail
from carvana_ray.report.page import page
from carvana_ray.report.training_curves import curves

__all__ = ["Tile", "curves", "cut_out", "errors", "page", "sheet", "shrink_to", "thumbnail"]
