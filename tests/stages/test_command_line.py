"""The command `carvana-ray`: its list of subcommands, its usage errors, its speed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import REPOSITORY

from carvana_ray import __version__
from carvana_ray.config import completion
from carvana_ray.config.commands import COMMANDS
from carvana_ray.errors import EXIT_OK, EXIT_USAGE
from carvana_ray.stages.command_line import main

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


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_all_are_listed_by_section(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == [*COMMANDS, "help", "completion", "--version", "carvana-ray"]
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["cut out:", "train:", "files:", "help:", "example:"]
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_with_a_command_is_the_help_of_the_command(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for argv in (["help", name], [name, "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == EXIT_OK
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""


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
    ("word", "meant"),
    [("trian", "train"), ("cut-out", "cutout"), ("evalute", "evaluate"), ("x", None)],
)
def test_a_mistyped_command_brings_the_nearest_one(
    word: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in ([word], ["help", word]):
        assert main(argv) == EXIT_USAGE
        error = capsys.readouterr().err
        assert (f"; did you mean {meant}?" in error) if meant else ("did you mean" not in error)


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--help"],
        ["predict", "--version"],
        ["train", "--epoch", "3"],
        ["completion", "bash"],
        ["completion"],
        [],
    ],
)
def test_help_and_usage_errors_import_nothing_slow(argv: list[str]) -> None:
    subprocess.run([sys.executable, "-c", SHOW_HELP, *argv], check=True, capture_output=True)


@pytest.mark.parametrize("argv", [["--version"], ["train", "--help"], ["train", "--epoch", "3"]])
def test_help_version_and_usage_errors_take_less_than_half_a_second(argv: list[str]) -> None:
    """In seconds of a core, which other processes of the machine do not change; best of three."""

    def cpu_s() -> float:
        before = os.times()
        command = [sys.executable, "-m", "carvana_ray", *argv]
        subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # user and system time of child processes

    assert 0 < min(cpu_s() for _ in range(3)) < 0.5


def with_stdout(redirection: str, argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a redirection; its exit code is in stdout, its errors in stderr."""
    line = f"{sys.executable} -m carvana_ray {argv} {redirection}; echo ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("argv", ["--help", "help train", "--version", "completion bash"])
def test_a_closed_pipe_brings_no_traceback(argv: str) -> None:
    done = with_stdout("| true", argv)
    assert done.stderr == ""
    assert done.stdout in ("0\n", "1\n")  # 0 if all was written before the reader was gone
    done = with_stdout(">&-", argv)
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_named() -> None:
    done = with_stdout("> /dev/full", "--version")
    assert done.stdout == "1\n"
    assert done.stderr == "carvana-ray: error: stdout: No space left on device\n"


def test_a_job_whose_result_nobody_reads_brings_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("img,rle_mask\n00087a6bd4dc_01.jpg,1 1\n")
    done = with_stdout("| true", f"check {tmp_path}/a.csv --quiet")
    assert (done.stderr, done.stdout) == ("", "1\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == EXIT_OK
    assert capsys.readouterr().out == completion.script(shell, COMMANDS)


def test_completion_needs_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["completion"], ["completion", "tcsh"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == EXIT_USAGE
        assert "bash" in capsys.readouterr().err


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
