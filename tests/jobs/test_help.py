"""The commands that `--help` and the documents show are commands that the jobs take."""

import importlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carvana_ray.config import cli

REPOSITORY = Path(__file__).parents[2]
JOBS = sorted(path.stem for path in (REPOSITORY / "jobs").glob("[!_]*.py"))
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the job and the words after it of each line that runs one, as a shell reads it."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := re.search(r"python jobs/(\w+)\.py(.*)", line):
            # What is behind a pipe, or ends `$( )` or a quotation, is no word of the command.
            yield found[1], shlex.split(re.split(r" [|)>]|`", found[2])[0], comments=True)


class Taken(Exception):
    """A job has read its flags."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make jobs raise `Taken` where they would begin their work."""
    parse = cli.parse

    def stop(*args: Any) -> Any:
        raise Taken(parse(*args))

    monkeypatch.setattr(cli, "parse", stop)


def takes(job: str, argv: list[str]) -> bool:
    """Return whether a job takes these flags; what is wrong with them is on stderr."""
    try:
        importlib.import_module(f"jobs.{job}").main(argv)
    except Taken:
        return True
    except SystemExit:
        return False
    raise AssertionError("a job without flags")


def test_this_file_sees_commands() -> None:
    text = (
        "    python jobs/a.py x --y 'two words'   # why\n"
        "run ray job submit -- \\\n    python jobs/b.py --data \\\n  d\n"
        "n=$(python jobs/c.py --quiet | jq .n)\nNot `jobs/d.py`, but `python jobs/e.py f`.\n"
    )
    found = [
        ("a", ["x", "--y", "two words"]),
        ("b", ["--data", "d"]),
        ("c", ["--quiet"]),
        ("e", ["f"]),
    ]
    assert list(commands(text)) == found


@pytest.mark.usefixtures("taken")
def test_what_a_job_does_not_take_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert not takes("train", ["--epoch", "3"])
    assert not takes("predict", ["--submission", "a.txt"])
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("job", JOBS)
def test_the_examples_of_a_job_are_three_to_five_and_it_takes_them(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(commands(importlib.import_module(f"jobs.{job}").EXAMPLES))
    assert 3 <= len(found) <= 5
    assert {name for name, _ in found} == {job}
    for name, argv in found:
        assert takes(name, argv), f"{shlex.join(argv)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_the_examples_as_they_can_be_pasted(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    module = importlib.import_module(f"jobs.{job}")
    with pytest.raises(SystemExit) as caught:
        module.main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.endswith(module.EXAMPLES)
    assert all(len(line) <= 100 for line in module.EXAMPLES.splitlines())


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_the_documents_are_taken(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job, argv in commands(path.read_text()):
        assert job in JOBS, f"{path.name}: jobs/{job}.py"
        # `...` stands for what does not matter there.
        words = [word for word in argv if word != "..."]
        assert takes(job, words), f"{shlex.join(argv)}: {capsys.readouterr().err}"
