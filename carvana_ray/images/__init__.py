"""Image files to arrays on the network's grid, and soft masks back to full size."""

from carvana_ray.images.decode import load_gray, load_rgb, load_upright, to_gray
from carvana_ray.images.masks import load_mask
from carvana_ray.images.resize import (
    DOWNSCALES,
    enlarge,
    grid_size,
    infer_downscale,
    shrink_mask,
    standardize,
    upsample,
)
from carvana_ray.images.turns import to_stored, to_upright

__all__ = [
    "DOWNSCALES",
    "enlarge",
    "grid_size",
    "infer_downscale",
    "load_gray",
    "load_mask",
    "load_rgb",
    "load_upright",
    "shrink_mask",
    "standardize",
    "to_gray",
    "to_stored",
    "to_upright",
    "upsample",
]
