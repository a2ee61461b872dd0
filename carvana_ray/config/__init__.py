"""One dataclass of flags per job."""

from carvana_ray.config.flags import (
    CheckFlags,
    CutoutFlags,
    EvaluateFlags,
    ExportFlags,
    LogFlags,
    ModelFlags,
    PipelineFlags,
    PredictFlags,
    RayFlags,
    SampleFlags,
    SeedFlags,
    TrainFlags,
)
