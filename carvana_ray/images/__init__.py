"""Bytes to arrays and back to full size."""

from carvana_ray.images.decode import gray_of, load_colour, load_gray, load_mask
from carvana_ray.images.resize import (
    DOWNSCALES,
    enlarge,
    factor,
    grid,
    shrink_mask,
    smooth,
    standardize,
)

__all__ = [
    "DOWNSCALES",
    "enlarge",
    "factor",
    "gray_of",
    "grid",
    "load_colour",
    "load_gray",
    "load_mask",
    "shrink_mask",
    "smooth",
    "standardize",
]
