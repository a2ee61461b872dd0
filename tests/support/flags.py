"""The flag classes of all jobs, and a check of a usage error."""

from typing import Any

import pytest

from carvana_ray import config
from carvana_ray.config import cli

WITHOUT_REQUIRED = [
    config.ModelFlags,
    config.SampleFlags,
    config.TrainFlags,
    config.EvaluateFlags,
    config.PredictFlags,
    config.PipelineFlags,
]
# The classes with required flags, and a command line that has them.
REQUIRED = {
    config.CheckFlags: ["a.csv"],
    config.CutoutFlags: ["--data", "photos"],
    config.ReviewFlags: ["runs/first"],
}
ALL = [*WITHOUT_REQUIRED, *REQUIRED]


def usage_error(
    kind: type[Any], argv: list[str], capsys: pytest.CaptureFixture[str], flag: str
) -> str:
    """Parse a wrong command line; return its error, one line that names the flag."""
    with pytest.raises(SystemExit) as caught:
        cli.parse(kind, "job", argv)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.endswith("\n")
    assert output.err.startswith("job: error: ")
    assert flag in output.err
    return output.err
