"""One kind of line is dropped from stderr; all others appear."""

import os

import pytest

from carvana_ray.runtime.stderr_filter import drop_lines


def test_only_the_marked_lines_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with drop_lines(b"out of scope"):
        os.write(2, b"E core_worker.cc: it may go out of scope.\nE core_worker.cc: another\n")
        os.write(2, b"a line of its own\n")
    os.write(2, b"afterwards out of scope\n")
    shown = capfd.readouterr().err
    assert shown == "E core_worker.cc: another\na line of its own\nafterwards out of scope\n"


def test_an_error_in_the_block_restores_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with drop_lines(b"x"):
            os.write(2, b"before\n")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
