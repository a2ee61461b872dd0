"""The scripts of benchmarks/ import each other by bare names, as Python does for a script."""

import sys

from support.commands import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))
