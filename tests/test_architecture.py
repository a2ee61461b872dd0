"""The layering, read from the source with `ast`: who may import Ray, torch, pyarrow and whom.

Imports anywhere in a file count, those within functions too.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "carvana_ray"
STAGES = PACKAGE / "stages"
MODULES = sorted(PACKAGE.rglob("*.py"))
JOBS = sorted((REPOSITORY / "jobs").rglob("*.py"))
OUTSIDE = [path for path in MODULES if STAGES not in path.parents]
PLAIN = [PACKAGE / f"{name}.py" for name in ("carvana", "cli", "config", "errors", "recipes")]
LIGHT = [PACKAGE / f"{name}.py" for name in ("images", "rle", "augment", "batches")]
LIGHT += sorted((PACKAGE / "studio").rglob("*.py"))


def where(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def imports(source: str, package: str) -> Iterator[str]:
    """Yield the dotted names that a file imports, `from a import b` as a.b; all absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def imports_of(path: Path) -> set[str]:
    return set(imports(path.read_text(), ".".join(path.relative_to(REPOSITORY).parent.parts)))


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def below(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(package + ".")}


def reached(path: Path) -> set[Path]:
    """Return the files of carvana_ray that importing `path` executes, `path` among them."""
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for name in below(imports_of(file), "carvana_ray"):
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                place = REPOSITORY.joinpath(*parts[:length])
                todo += [
                    one for one in (place.with_suffix(".py"), place / "__init__.py") if one.exists()
                ]
    return found


def edits_of_sys_path(source: str) -> list[int]:
    """Return the lines that name `sys.path`, or import `path` from sys, or `site`."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        attribute = (
            isinstance(node, ast.Attribute)
            and node.attr == "path"
            and isinstance(node.value, ast.Name)
            and node.value.id == "sys"
        )
        imported = (
            isinstance(node, ast.ImportFrom)
            and node.module == "sys"
            and any(alias.name in ("path", "*") for alias in node.names)
        )
        if attribute or imported:
            lines.append(node.lineno)
    return lines


def test_this_file_sees_every_way_to_import() -> None:
    source = (
        "import ray\nimport ray.data as d\nfrom ray import train\nfrom . import a\n"
        "from ..b import c\ndef f():\n    import torch\n    importlib.import_module('x.y')\n"
    )
    found = set(imports(source, "carvana_ray.stages"))
    assert found == {
        "ray",
        "ray.data",
        "ray.train",
        "carvana_ray.stages.a",
        "carvana_ray.b.c",
        "torch",
        "x.y",
    }


def test_this_file_sees_edits_of_sys_path() -> None:
    assert edits_of_sys_path("import sys\nsys.path.insert(0, 'x')\nsys.exit(1)\n") == [2]
    assert edits_of_sys_path("from sys import path\n") == [1]


def test_the_files_that_the_laws_are_about_are_there() -> None:
    assert MODULES
    assert JOBS
    assert all(path.exists() for path in PLAIN + LIGHT)
    assert any("ray" in tops(path) for path in STAGES.glob("*.py"))


@pytest.mark.parametrize("path", OUTSIDE + JOBS, ids=where)
def test_only_stages_import_ray(path: Path) -> None:
    assert "ray" not in tops(path)


@pytest.mark.parametrize("path", OUTSIDE, ids=where)
def test_what_lies_outside_the_stages_never_imports_a_stage(path: Path) -> None:
    assert not below(imports_of(path), "carvana_ray.stages")


@pytest.mark.parametrize("path", JOBS, ids=where)
def test_no_job_edits_the_search_path(path: Path) -> None:
    assert edits_of_sys_path(path.read_text()) == []
    assert "site" not in tops(path)


@pytest.mark.parametrize("path", MODULES, ids=where)
def test_the_package_never_imports_its_jobs_or_tests(path: Path) -> None:
    assert not tops(path) & {"jobs", "tests", "conftest", "pytest", "hypothesis"}


@pytest.mark.parametrize("path", PLAIN, ids=where)
def test_carvana_config_and_errors_are_standard_library_alone(path: Path) -> None:
    foreign = {
        name
        for file in reached(path)
        for name in tops(file)
        if name != "carvana_ray" and name not in sys.stdlib_module_names
    }
    assert foreign == set()


@pytest.mark.parametrize("path", LIGHT, ids=where)
def test_pictures_batches_and_the_studio_know_no_torch_and_no_pyarrow(path: Path) -> None:
    assert {name for file in reached(path) for name in tops(file)} & {"torch", "pyarrow"} == set()
