"""``carvana-ray review`` as a script, for ``ray job submit -- python jobs/review.py``."""

import sys

from carvana_ray.stages.command_line import run_command

if __name__ == "__main__":
    sys.exit(run_command("review"))
