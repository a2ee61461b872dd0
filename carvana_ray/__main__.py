"""``python -m carvana_ray`` is ``carvana-ray``."""

import sys

from carvana_ray.stages.command_line import main

if __name__ == "__main__":
    sys.exit(main())
