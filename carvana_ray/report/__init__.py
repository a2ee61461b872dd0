"""Results for people: training curves, contact sheets, and one HTML page."""

from carvana_ray.report.builder import PAGE, add_section
from carvana_ray.report.training_curves import draw_curves

__all__ = ["PAGE", "add_section", "draw_curves"]
