"""The commands that `--help` and the documents show are valid commands."""

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.commands import REPOSITORY
from support.documents import commands
from support.flag_tables import PAGE, page

from carvana_ray.config import cli
from carvana_ray.config.commands import COMMANDS
from carvana_ray.stages.command_line import main, run_command

DOCUMENTS = [
    REPOSITORY / "README.md",
    *REPOSITORY.glob("CONTRIBUTING.md"),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]


class ParsedError(Exception):
    """A command has parsed its flags."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands raise `ParsedError` instead of starting their work."""
    parse = cli.parse

    def stop(*args: Any) -> Any:
        raise ParsedError(parse(*args))

    monkeypatch.setattr(cli, "parse", stop)


def is_valid(name: str, argv: list[str]) -> bool:
    """Return whether a command accepts these flags; the error is on stderr."""
    try:
        main([name, *argv])
    except ParsedError:
        return True
    except SystemExit:
        return False
    raise AssertionError("the command has not parsed its flags")


def test_commands_are_found_in_a_text() -> None:
    text = (
        "    python jobs/a.py x --y 'two words'   # why\n"
        "run ray job submit -- \\\n    python jobs/b.py --data \\\n  d\n"
        "n=$(python jobs/c.py --quiet | jq .n)\nNot `jobs/d.py`, but `python jobs/e.py f`.\n"
        "  carvana-ray f --x 1  # why\nn=$(carvana-ray g --quiet | jq .n)\n"
        "Run `carvana-ray h a.jpg` and read. The carvana-ray package has no command here.\n"
    )
    found = [
        ("a", ["x", "--y", "two words"]),
        ("b", ["--data", "d"]),
        ("c", ["--quiet"]),
        ("e", ["f"]),
        ("f", ["--x", "1"]),
        ("g", ["--quiet"]),
        ("h", ["a.jpg"]),
    ]
    assert list(commands(text)) == found


@pytest.mark.usefixtures("parsed")
def test_invalid_flags_are_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_valid("train", ["--epoch", "3"])
    assert not is_valid("predict", ["--submission", "a.txt"])
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_three_to_five_valid_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(commands(COMMANDS[name].examples))
    assert 3 <= len(found) <= 5
    assert {command for command, _ in found} == {name}
    for _, argv in found:
        assert is_valid(name, argv), f"{shlex.join(argv)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_examples_as_they_can_be_pasted(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        run_command(name, ["--help"])
    assert caught.value.code == 0
    examples = COMMANDS[name].examples
    assert capsys.readouterr().out.endswith(f"examples:\n{examples}")
    assert all(len(line) <= 100 for line in examples.splitlines())


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_the_documents_are_valid(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, argv in commands(path.read_text()):
        assert name in {*COMMANDS, "completion"}, f"{path.name}: {name}"
        words = [word for word in argv if word != "..."]  # left out there
        # A name without flags is a mention, such as "`carvana-ray export` writes a file".
        assert not words or is_valid(name, words), f"{shlex.join(argv)}: {capsys.readouterr().err}"


def test_the_page_of_flags_is_that_of_the_program() -> None:
    assert PAGE.read_text() == page(), "cd tests && python -m support.flag_tables"


@pytest.mark.usefixtures("parsed")
def test_the_example_of_the_program_s_own_help_is_valid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    ((name, argv),) = commands(capsys.readouterr().out)
    assert name == "cutout"
    assert is_valid(name, argv)
