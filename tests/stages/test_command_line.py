"""The command `carvana-ray`: its list of subcommands, its usage errors, its speed."""

import subprocess
import sys

import pytest
from support.commands import REPOSITORY

from carvana_ray import __version__
from carvana_ray.errors import EXIT_OK, EXIT_USAGE
from carvana_ray.stages.command_line import COMMANDS, main

SLOW_IMPORTS = "ray", "torch", "numpy", "rich", "PIL", "boto3"
SHOW_HELP = f"""
import sys
from carvana_ray.stages.command_line import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code in (0, 2)
assert not set({SLOW_IMPORTS}) & set(sys.modules)
"""


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed_one_a_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == list(COMMANDS)
    assert all(len(line) <= 100 for line in lines)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == EXIT_OK
    assert capsys.readouterr().out == f"carvana_ray {__version__}\n"


@pytest.mark.parametrize("word", ["trian", "--data", ""])
def test_an_unknown_command_is_a_usage_error_that_names_all(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == EXIT_USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"carvana-ray: error: {word} is not a command; ")
    assert output.err.count("\n") == 1
    assert all(name in output.err for name in COMMANDS)


@pytest.mark.parametrize(
    "argv", [["train", "--help"], ["predict", "--version"], ["train", "--epoch", "3"], []]
)
def test_help_and_usage_errors_import_nothing_slow(argv: list[str]) -> None:
    subprocess.run([sys.executable, "-c", SHOW_HELP, *argv], check=True, capture_output=True)


@pytest.mark.parametrize("command", [["-m", "carvana_ray", "train"], ["jobs/train.py"]])
def test_a_usage_error_names_the_command_that_shows_the_flags(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--epochs", "0"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_USAGE
    assert done.stderr.startswith("train: error: --epochs 0: ")
    assert done.stderr.endswith(" (see carvana-ray train --help)\n")


def test_each_command_has_a_job_of_its_name() -> None:
    jobs = {path.stem for path in (REPOSITORY / "jobs").glob("*.py")}
    assert jobs - {"__init__"} == set(COMMANDS)
