"""TensorBoard's event files, as TensorBoard reads them."""

from pathlib import Path
from typing import Any

import pytest

from carvana_ray.training import tensorboard as events


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each tag, as TensorBoard reads them."""
    reason = "the package tensorboard is not installed"
    module = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(module, reason=reason).EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def expected(history: list[dict[str, float]]) -> dict[str, Any]:
    """Return what the reader should find: float32 of each row's figures."""
    return {
        tag: [(row["epoch"], pytest.approx(row[key], rel=1e-6)) for row in history]
        for key, tag in events.TAGS.items()
        if key in history[0]
    }
