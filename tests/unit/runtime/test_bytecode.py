"""Compiled Python in a folder of the user, where packages have none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from carvana_ray.runtime.bytecode import cache_bytecode
cache_bytecode()
import ray
print(sys.pycache_prefix, os.environ.get("PYTHONDONTWRITEBYTECODE") or "")
"""


def run(tmp_path: Path, **extra: str) -> str:
    """Run the script with a package ``ray`` that has no compiled files; return what it prints."""
    package = tmp_path / "site" / "ray"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPYCACHEPREFIX"}
    path = os.pathsep.join([str(package.parent), *filter(None, sys.path)])
    environment |= {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), **extra}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_compiled_files_go_to_a_private_folder_where_none_may_be_next_to_the_sources(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "cache" / "carvana_ray" / "bytecode"
    assert run(tmp_path, PYTHONDONTWRITEBYTECODE="1") == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.rglob("ray/__init__*.pyc"))
    assert not (tmp_path / "site" / "ray" / "__pycache__").exists()


def test_nothing_changes_where_python_writes_compiled_files_itself(tmp_path: Path) -> None:
    assert run(tmp_path, PYTHONDONTWRITEBYTECODE="") == "None"
    assert run(tmp_path, PYTHONDONTWRITEBYTECODE="1") == "None 1"  # they exist now
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache" / "carvana_ray" / "bytecode"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert run(tmp_path, PYTHONDONTWRITEBYTECODE="1") == "None 1"


def test_a_folder_that_the_user_names_stays(tmp_path: Path) -> None:
    named = str(tmp_path / "named")
    printed = run(tmp_path, PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX=named)
    assert printed == f"{named} 1"
