"""The flag ``--corrections``: masks that a person has corrected."""

from dataclasses import dataclass

from carvana_ray.config.cli import option
from carvana_ray.config.flags import RayFlags


@dataclass(frozen=True, kw_only=True)
class CorrectionsFlags(RayFlags):
    """Flag of every job that uses corrected masks."""

    corrections: str = option(
        "",
        "folder of the command review with corrected masks, or a folder of masks: predict and "
        "cutout use them instead of the model's, train adds them to its pairs",
        group="input",
        metavar="FOLDER",
    )
