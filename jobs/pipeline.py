"""The main job: data, model, score, checked submission: ``python jobs/pipeline.py``."""

import sys
from typing import Any

from carvana_ray import config
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/pipeline.py --out runs/demo --downscale 8 --base 8 --epochs 12   # a drawn sample
  python jobs/pipeline.py --data carvana --out runs/first
  python jobs/pipeline.py --data carvana --out runs/dry --limit 320 --epochs 1
  ray job submit --working-dir . -- python jobs/pipeline.py --data s3://bucket/carvana \\
      --out s3://bucket/runs/first --workers 2
"""


def stage() -> Any:
    """Import the stage; it takes a while."""
    from carvana_ray.stages import pipeline

    return pipeline


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("pipeline", config.PipelineFlags, stage, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
