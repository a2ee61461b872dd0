"""One dataclass of flags per job."""

from carvana_ray.config.flags import (
    Check,
    Cutout,
    Evaluate,
    Export,
    Network,
    Pipeline,
    Predict,
    Sample,
    Seeded,
    Session,
    Terminal,
    Train,
)

__all__ = [
    "Check",
    "Cutout",
    "Evaluate",
    "Export",
    "Network",
    "Pipeline",
    "Predict",
    "Sample",
    "Seeded",
    "Session",
    "Terminal",
    "Train",
]
