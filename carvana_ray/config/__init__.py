"""One dataclass of flags per job."""

from carvana_ray.config.cutout_flags import CutoutFlags
from carvana_ray.config.flags import (
    STARTER,
    CheckFlags,
    CompletionFlags,
    ExportFlags,
    LogFlags,
    ModelFlags,
    RayFlags,
    SampleFlags,
    SeedFlags,
)
from carvana_ray.config.pipeline_flags import PipelineFlags
from carvana_ray.config.predict_flags import EvaluateFlags, PredictFlags, UseModelFlags
from carvana_ray.config.review_flags import ReviewFlags
from carvana_ray.config.train_flags import TrainFlags
