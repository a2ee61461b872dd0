"""Shell completion: what bash, zsh and fish themselves offer with the scripts."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from carvana_ray.config import completion
from carvana_ray.config.commands import COMMANDS

# Calls the function as bash does when Tab is pressed; `compopt` works only in a real completion.
ASK_BASH = """
. $1
complete -p carvana-ray >&2
compopt() { echo "compopt $*"; }
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_carvana_ray
echo "${COMPREPLY[*]}"
"""


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}: apt-get install {request.param}")
    return request.param


@pytest.fixture(scope="module")
def script(shell: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / shell
    path.write_text(completion.script(shell, COMMANDS))
    return path


def ask_bash(path: Path, *words: str) -> str:
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK_BASH, "bash", str(path), "carvana-ray", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "complete -o default -F _carvana_ray carvana-ray\n"
    return done.stdout.strip()


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ([""], f"{' '.join(COMMANDS)} help completion --help --version"),
        (["tr"], "train"),
        (["cutout", "--edge", ""], "auto soft hard"),
        (["train", "--recipe", "=", "b"], "best"),
        (["cutout", "--edge", "="], "auto soft hard"),
        (["predict", "--on-bad-picture", ""], "fail empty"),
        (["cutout", "--on-bad-picture", ""], "fail skip"),  # the same flag of another command
        (["train", "--downscale", ""], "1 2 4 8"),
        (["train", "--ba"], "--base --batch-size"),
        (["cutout", "--edge", "hard", "--back"], "--background"),
        (["cutout", "--no-"], "--no-recursive"),
        (["cutout", ""], ""),  # bash completes the names of files
        (["cutout", "--background", ""], ""),
        (["train", "--data", ""], "compopt -o plusdirs +o default"),
        (["train", "--epochs", ""], "compopt +o default"),  # a number: nothing
        (["help", "ex"], "export"),
        (["completion", "z"], "zsh"),
    ],
)
def test_bash_completes_commands_flags_and_values(
    words: list[str], reply: str, script: Path
) -> None:
    assert ask_bash(script, *words) == reply


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_a_command_that_names_no_files_offers_its_flags(script: Path) -> None:
    offered = ask_bash(script, "evaluate", "").split()
    assert {"--data", "--model", "--help"} <= set(offered)
    assert "--epochs" not in offered


@pytest.mark.parametrize("shell", ["fish"], indirect=True)
@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("tra", ["train"]),
        ("cutout --edge ", ["auto", "hard", "soft"]),
        ("train --batch", ["--batch-size"]),
        ("completion z", ["zsh"]),
        ("help exp", ["export"]),
    ],
)
def test_fish_completes_commands_flags_and_values(
    line: str, reply: list[str], script: Path
) -> None:
    command = f"source {script}; complete -C 'carvana-ray {line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True
    )
    assert [one.split("\t")[0] for one in done.stdout.splitlines()] == reply


def type_in(argv: list[str], steps: list[tuple[str, str]]) -> None:
    """Type into a shell on a terminal; after each text wait until the shell shows another one."""
    process, terminal = pty.fork()
    if not process:
        os.execvp(argv[0], argv)
    try:
        for text, expected in steps:
            os.write(terminal, text.encode())
            shown, end = "", time.monotonic() + 30
            while expected not in shown:
                assert time.monotonic() < end, f"{text!r}: {shown!r}"
                if select.select([terminal], [], [], 1)[0]:
                    shown += os.read(terminal, 4096).decode(errors="replace")
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"], indirect=True)
def test_the_tab_key_completes_a_flag_and_its_value(shell: str, script: Path) -> None:
    start = {"bash": "", "zsh": f"autoload -Uz compinit; compinit -u -d {script}.dump; "}
    argv = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
    steps = [
        (f"{start[shell]}source {script}; echo RE''ADY\n", "READY"),
        ("carvana-ray train --recipe de\t", "default"),
        ("--batch-s\t", "--batch-size"),
    ]
    type_in(argv[shell], steps)
