"""Compiled Python (``.pyc``) where packages have none and Python may not write any next to them.

Images of containers often are built so, with PYTHONDONTWRITEBYTECODE set. Then each of the dozens
of processes of a job compiles Ray and torch anew, which takes several seconds of a core each.
"""

import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = "ray"  # the largest that all processes import


def cache_bytecode() -> None:
    """Let this process and its children share compiled files in a folder of the user.

    Nothing changes if the package has compiled files, if Python writes them itself, or if the user
    has named a folder (PYTHONPYCACHEPREFIX). Compiled files are as trusted as the code itself, so
    the folder is private.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if sys.pycache_prefix or spec is None or not spec.cached or os.path.exists(spec.cached):
        return
    if not sys.dont_write_bytecode and os.access(os.path.dirname(str(spec.origin)), os.W_OK):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home, "carvana_ray", "bytecode")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not os.access(folder, os.W_OK):
        return
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
