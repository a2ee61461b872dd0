"""The import law: which package may import which, and where Ray, torch and pyarrow may appear."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("carvana_ray", "jobs", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# From top to bottom. A package imports only from rows below its own.
ROWS = [
    ["jobs", "benchmarks", "__main__"],
    ["stages"],
    ["training", "submission", "review", "report", "export"],
    ["data", "cutouts", "checkpoints", "inference", "runtime"],
    ["storage", "images", "config"],
    ["unet", "rle", "sample", "errors"],
]
ROW_OF = {package: number for number, row in enumerate(ROWS) for package in row}
TASKS = ["stages.ingest.blocks", "stages.ingest.read_images", "stages.ingest.read_pairs"]
TASKS += ["stages.predict.write_shards", "stages.predict.measure_masks"]
TASKS += ["stages.cutout.write_cutouts", "stages.cutout.write_viewers"]
LIGHT = ["images.decode", "images.resize", "images.augment", "rle", "sample", "training.batch_plan"]
LIGHT += ["stages.precheck"]
STANDARD = ["config", "config.cli", "config.commands", "config.completion", "config.recipes"]
STANDARD += ["errors", "data.layout"]


def imports(source: str) -> set[str]:
    """Return the dotted names that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


IMPORTS = {module: imports(path.read_text()) for module, path in FILES.items()}


def package_of(name: str) -> str:
    """Return a module's package: `unet` for `carvana_ray.unet.loss`, `jobs` for `jobs.train`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "carvana_ray" and len(parts) > 1 else parts[0]


def law_broken(module: str, names: set[str]) -> set[str]:
    """Return the imports of a module that the law forbids."""
    own = package_of(module)
    wrong = {
        name
        for name in names
        if (room := package_of(name)) in ROW_OF and room != own and ROW_OF[room] <= ROW_OF[own]
    }
    ray = {name for name in names if name.split(".")[0] == "ray"}
    return wrong | (ray if own not in ("stages", "benchmarks") else set())


def outside(module: str) -> set[str]:
    """Return the top-level packages outside the project that importing a module executes."""
    seen: set[str] = set()
    todo = [f"carvana_ray.{module}"]
    found = set()
    while todo:
        parts = todo.pop().split(".")
        for name in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            if name in FILES and name not in seen:
                seen.add(name)
                todo += [one for one in IMPORTS[name] if one.startswith("carvana_ray.")]
                found |= {one.split(".")[0] for one in IMPORTS[name]} - {"carvana_ray"}
    return found


@pytest.mark.parametrize("module", [name for name in FILES if package_of(name) in ROW_OF])
def test_a_package_imports_only_from_rows_below_its_own(module: str) -> None:
    assert law_broken(module, IMPORTS[module]) == set()


def test_every_package_has_a_row() -> None:
    assert {package_of(name) for name in FILES} - {"carvana_ray"} <= set(ROW_OF)


@pytest.mark.parametrize("module", [*TASKS, "stages.train.assemble_batches"])
def test_task_modules_start_without_torch(module: str) -> None:
    assert "torch" not in outside(module)


@pytest.mark.parametrize("module", [*TASKS, "stages.predict.mask_predictor"])
def test_maps_start_without_ray(module: str) -> None:
    assert "ray" not in outside(module)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_know_no_torch_no_pyarrow_and_no_ray(module: str) -> None:
    assert not {"torch", "pyarrow", "ray"} & outside(module)


@pytest.mark.parametrize("module", STANDARD)
def test_flags_errors_and_names_are_standard_library_alone(module: str) -> None:
    assert outside(module) <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("carvana_ray.images.decode", "carvana_ray.stages.runner"),  # up
        ("carvana_ray.data.catalog", "carvana_ray.runtime.progress"),  # sideways
        ("carvana_ray.report.page", "ray.data"),  # Ray outside the stages
        ("carvana_ray.training.loop", "ray.train"),
        ("carvana_ray.rle", "carvana_ray.errors"),
    ],
)
def test_a_planted_import_breaks_the_law(module: str, name: str) -> None:
    assert law_broken(module, {name}) == {name}


def test_no_function_is_longer_than_40_lines_of_code() -> None:
    """In carvana_ray and jobs; docstring, comments and blank lines do not count."""
    long = []
    for module, path in FILES.items():
        if module.endswith("_triton") or module.startswith("benchmarks"):
            continue
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1 if ast.get_docstring(node) and node.body[1:] else 0]
                code = lines[node.lineno - 1 : node.body[0].lineno - 1]
                code += lines[first.lineno - 1 : node.end_lineno]
                if sum(bool(line.strip()) and line.strip()[0] != "#" for line in code) > 40:
                    long.append(f"{module}.{node.name}")
    assert long == []
