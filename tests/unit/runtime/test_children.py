"""Work in child processes: results, errors, deaths, signals, and the end."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import REPOSITORY

from carvana_ray.errors import BadImageError, IncompleteError
from carvana_ray.runtime.children import ChildDiedError, Children

ERRORS = "from carvana_ray import errors"


@pytest.fixture
def children() -> Iterator[Children]:
    with Children(2) as children:
        yield children


def is_alive(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_and_errors_come_back_and_a_child_is_another_process(children: Children) -> None:
    pids = {children.submit(eval, "__import__('os').getpid()").result() for _ in range(8)}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert [children.submit(len, "x" * n).result() for n in (0, 5)] == [0, 5]
    with pytest.raises(ValueError, match="invalid literal"):
        children.submit(int, "seven").result()
    with pytest.raises(BadImageError, match="mode"):
        children.submit(exec, f"{ERRORS}; raise errors.BadImageError('mode')").result()
    large = b"x" * 10_000_000
    assert children.submit(bytes.upper, large).result() == large.upper()


def test_what_cannot_travel_is_an_error_and_ends_no_child(children: Children) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        children.submit(lambda item: item, 1).result()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        children.submit(eval, "lambda: 1").result()
    with pytest.raises(RuntimeError, match="BadImagesError: text"):
        children.submit(exec, f"{ERRORS}; raise errors.BadImagesError('text', {{}})").result()
    with pytest.raises(EOFError):
        children.submit(exec, "raise EOFError").result()
    with pytest.raises(ModuleNotFoundError):
        children.submit(__import__, "no_such_module").result()
    assert children.submit(len, "abc").result() == 3


@pytest.mark.parametrize(
    ("code", "message", "killed"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "Segmentation fault", False),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Killed", True),
        ("os._exit(7)", "exit code 7", False),
    ],
)
def test_a_child_that_dies_is_told_and_the_next_task_gets_another(
    code: str, message: str, killed: bool
) -> None:
    with Children(1) as children:
        dying = children.submit(exec, f"import os, signal; {code}")
        with pytest.raises(ChildDiedError, match=message) as error:
            dying.result()
        assert error.value.killed is killed
        assert children.submit(len, "abc").result() == 3


def test_a_child_that_does_not_start_is_one_line() -> None:
    with Children(1, ["no_such_module"]) as children:
        length = children.submit(len, "abc")
        with pytest.raises(IncompleteError, match="did not start; --verbose shows why"):
            length.result()


def test_ctrl_c_of_the_terminal_reaches_the_parent_only(children: Children) -> None:
    pid = children.submit(eval, "__import__('os').getpid()").result()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert children.submit(len, "abc").result() == 3
    assert is_alive(pid)


def test_the_end_of_the_block_ends_children_at_work() -> None:
    began = time.monotonic()
    with Children(1) as children:
        pid = children.submit(eval, "__import__('os').getpid()").result()
        children.submit(time.sleep, 60)
        time.sleep(0.1)
    assert not is_alive(pid)
    assert time.monotonic() - began < 30


PARENT = """
import sys, time
from carvana_ray.runtime.children import Children
with Children(1) as children:
    print(children.submit(eval, "__import__('os').getpid()").result(), flush=True)
    time.sleep(60)
"""


def test_children_end_with_a_parent_that_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
