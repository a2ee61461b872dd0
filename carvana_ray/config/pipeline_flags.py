"""The flags of ``carvana-ray pipeline``: those of the jobs that it runs."""

from dataclasses import dataclass
from typing import Literal

from carvana_ray.config.cli import option
from carvana_ray.config.flags import SampleFlags
from carvana_ray.config.predict_flags import PredictFlags
from carvana_ray.config.train_flags import TrainFlags
from carvana_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PipelineFlags(PredictFlags, TrainFlags, SampleFlags):
    """Run sample (without --data), train, evaluate and predict, in order.

    The same command resumes: it skips finished work.
    """

    data: str = option(
        "",
        "folder in Kaggle's layout (default: draw a sample under OUT/sample)",
        group="input",
        metavar="FOLDER",
    )
    out: str = option(
        "runs/latest",
        "folder or s3:// prefix for all results; the same folder again resumes",
        group="output",
        metavar="FOLDER",
    )
    on_bad_picture: Literal["fail", "empty"] = option(  # type: ignore[assignment]
        "fail",
        "in prediction: fail, or an empty mask for the image; bad training images always fail",
        group="input",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model:
            raise InputError("--model: a pipeline trains its own model; use the command predict")
        if self.merge_only or self.verify:
            raise InputError("--merge-only, --verify: use the command predict")
        if not self.holdout_cars.strip("0."):
            raise InputError("--holdout-cars 0: the pipeline scores held-out cars; use 1 or more")
        if not self.data and not self.sample_test_cars:
            raise InputError("--sample-test-cars 0: the pipeline predicts test cars; use 1 or more")
