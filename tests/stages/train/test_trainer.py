"""How the end of Ray Train is reported."""

import pytest

from carvana_ray.runtime.background import run_in_background
from carvana_ray.stages.train.trainer import wait_for_training
from carvana_ray.training.loop import DivergedError


def test_a_training_that_diverges_is_reported_in_one_line() -> None:
    from ray.train import WorkerGroupError

    def fit() -> None:
        trace = (
            "Traceback ...\n"
            "carvana_ray.training.loop.DivergedError: the loss of epoch 2 is nan: lower it\n"
        )
        raise WorkerGroupError("[Rank 0]", {0: RuntimeError(trace)})

    with pytest.raises(DivergedError, match=r"^the loss of epoch 2 is nan: lower it$"):
        wait_for_training(run_in_background(fit))

    def other() -> None:
        raise WorkerGroupError("[Rank 0] something else", {0: RuntimeError("something else")})

    with pytest.raises(WorkerGroupError, match="something else"):
        wait_for_training(run_in_background(other))
