"""Where the errors of masks are: by distance to the true boundary, place, contrast and view.

A distance is the larger one of rows and columns to the nearest pixel of the other class (Chebyshev)
in the true mask. The place is above or below the line at `UPPER` of the height of the car, from its
top. Contrast is the difference between the mean gray levels of the car and of the ground within
`REACH` rows and columns of a pixel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DISTANCES = (1, 2, 4, 8)  # upper limits of the classes; the last class is farther
DISTANCE_NAMES = ("1", "2", "3 to 4", "5 to 8", "more")
UPPER = 0.45
REACH = 4
LOW_CONTRAST = 8.0  # gray levels
NEAR = 2  # pixels: errors up to this distance have a contrast

Errors = dict[str, Any]


def distance_classes(truth: Tensor) -> Tensor:
    """Return the class of each pixel's distance to the boundary, uint8 [B, H, W].

    Args:
        truth: bool [B, H, W].
    """
    dtype = torch.float16 if truth.is_cuda else torch.float32
    reached = torch.stack([truth, ~truth], dim=1).to(dtype)  # pixels that a class has reached
    classes = torch.full(truth.shape, len(DISTANCES), dtype=torch.uint8, device=truth.device)
    done = 0
    for number, distance in enumerate(DISTANCES):
        step = distance - done
        reached = F.max_pool2d(reached, (1, 2 * step + 1), 1, (0, step))
        reached = F.max_pool2d(reached, (2 * step + 1, 1), 1, (step, 0))
        done = distance
        both = reached.amin(1) > 0
        classes[both & (classes == len(DISTANCES))] = number
    return classes


def lower_rows(truth: Tensor) -> Tensor:
    """Return which rows are below the line at `UPPER` of the car's height, bool [B, H].

    Args:
        truth: bool [B, H, W].
    """
    rows = truth.any(2).int()
    height = truth.shape[1]
    top, bottom = rows.argmax(1), height - 1 - rows.flip(1).argmax(1)
    line = top + UPPER * (bottom - top)
    return torch.arange(height, device=truth.device) > line[:, None]


def contrast(gray: Tensor, truth: Tensor) -> Tensor:
    """Return the contrast at each pixel that has both classes in reach, float32 [B, H, W].

    Args:
        gray: uint8 [B, H, W].
        truth: bool [B, H, W].
    """
    size = 2 * REACH + 1
    levels = gray.float()
    means = []
    for part in (truth.float(), (~truth).float()):
        inside = torch.stack([levels * part, part], dim=1)
        total, count = F.avg_pool2d(inside, size, 1, REACH).unbind(1)
        means.append(total / count.clamp(min=1e-3))
    return (means[0] - means[1]).abs()


def count_errors(masks: Tensor, truth: Tensor, gray: Tensor) -> Errors:
    """Return sums over some images.

    Args:
        masks, truth: bool [B, H, W].
        gray: uint8 [B, H, W].

    Returns:
        pixels: wrong pixels, float64 [class of distance, upper or lower, missed or false].
        contrast: float64 [low or high, wrong pixels up to `NEAR` or pixels of the boundary].
    """
    classes, lower = distance_classes(truth), lower_rows(truth)[:, :, None]
    wrong = masks != truth
    kinds = classes.long() * 4 + lower * 2 + masks  # a wrong pixel of the mask is a false one
    pixels = torch.bincount(kinds[wrong], minlength=4 * len(DISTANCE_NAMES))
    low = contrast(gray, truth) < LOW_CONTRAST
    near = wrong & (classes <= DISTANCES.index(NEAR))
    boundary = classes == 0
    by_contrast = [[(what & part).sum() for what in (near, boundary)] for part in (low, ~low)]
    return {
        "pixels": pixels.view(len(DISTANCE_NAMES), 2, 2).double().cpu().numpy(),
        "contrast": np.array([[float(count) for count in row] for row in by_contrast]),
    }


def join_errors(parts: Sequence[Mapping[str, Any]]) -> Errors:
    """Return means an image of the errors of several trainings, weighted by their images.

    Args:
        parts: with the number of ``images``, ``pixels`` and ``contrast`` an image, and ``views``,
            the mean Dice by view.
    """

    def mean(values: Sequence[Any], of: Sequence[Mapping[str, Any]]) -> Any:
        return np.average(values, axis=0, weights=[part["images"] for part in of]).tolist()

    views = {}
    for view in sorted({view for part in parts for view in part["views"]}, key=int):
        seen = [part for part in parts if view in part["views"]]
        views[view] = mean([part["views"][view] for part in seen], seen)
    return {
        "images": sum(part["images"] for part in parts),
        "pixels": mean([part["pixels"] for part in parts], parts),
        "contrast": mean([part["contrast"] for part in parts], parts),
        "views": views,
    }


def error_tables(joined: Mapping[str, Errors]) -> str:
    """Return Markdown tables of `join_errors`, a row for each name."""
    by_distance, by_contrast, by_view = [], [], []
    for name, errors in joined.items():
        pixels, contrasts = np.array(errors["pixels"]), np.array(errors["contrast"])
        place, kind = pixels.sum((0, 2)), pixels.sum((0, 1))
        counts = [*pixels.sum((1, 2)), pixels.sum(), *kind, *place]
        by_distance.append([name, *(f"{count:,.0f}" for count in counts)])
        near, boundary = contrasts.T
        rates = near / np.maximum(boundary, 1e-9)
        by_contrast.append([name, f"{boundary[0] / max(boundary.sum(), 1e-9):.1%}"])
        by_contrast[-1] += [f"{count:,.0f}" for count in near] + [f"{rate:.2f}" for rate in rates]
        by_view.append([name, *(f"{dice:.4f}" for dice in errors["views"].values())])
    views = next(iter(joined.values()))["views"] if joined else {}
    distance = ["", *DISTANCE_NAMES, "all", "missed", "false", f"upper {UPPER:.0%}", "below"]
    low = ["", "boundary of low contrast", "wrong, low", "wrong, others"]
    low += ["for each boundary pixel, low", "others"]
    parts = [
        "Wrong pixels of an image, by distance to the true boundary (pixels), kind and place:",
        markdown(distance, by_distance),
        f"Wrong pixels up to {NEAR} pixels from the boundary, by contrast "
        f"(low: under {LOW_CONTRAST:.0f} gray levels):",
        markdown(low, by_contrast),
        "Mean Dice by view:",
        markdown(["", *views], by_view),
    ]
    return "\n\n".join(parts)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
