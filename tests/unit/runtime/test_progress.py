"""Plain lines in a log, ten seconds apart, with rate and time left; a bar on a terminal."""

import io
import re
import sys
import time

import pytest

from carvana_ray.runtime import progress
from carvana_ray.runtime.progress import LINE_EVERY_S, ProgressMeter, StageTimer


@pytest.fixture(autouse=True)
def no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test alone refreshes a meter."""
    monkeypatch.setattr(progress, "TICK_S", 3600)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_lines_with_rate_and_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("predict", 1000, stream=stream, clock=clock) as meter:
        assert stream.getvalue() == "predict: starting, 1,000 images\n"
        clock.now += 60  # processes start
        meter.set(20)
        clock.now += 11
        meter.set(240)
        clock.now += 11
        meter.set(460)
        clock.now += 27
        meter.set(1000)
    lines = stream.getvalue().splitlines()
    assert "predict: 240 of 1000, 20.0 images/s, 38 s left" in lines
    assert "predict: 460 of 1000, 20.0 images/s, 27 s left" in lines
    assert lines[-1] == "predict: 1000 of 1000, 20.0 images/s"
    assert "\x1b" not in stream.getvalue(), "no colors in a log"
    assert "\r" not in stream.getvalue()


def test_the_start_of_processes_does_not_slow_the_rate() -> None:
    clock = Clock()
    with ProgressMeter("x", 100, stream=io.StringIO(), clock=clock) as meter:
        clock.now += 500
        meter.set(10)
        clock.now += 10
        meter.set(60)
        assert meter.rate == pytest.approx(5)


def test_before_the_first_image_the_lines_say_how_long_it_takes_and_become_rarer() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("x", 100, stream=stream, clock=clock) as meter:
        for _ in range(100):
            clock.now += 1
            meter.set(0)
        assert meter.rate == 0
    assert stream.getvalue().splitlines() == [
        "x: starting, 100 images",
        "x: 0 of 100, still starting after 10 s",
        "x: 0 of 100, still starting after 30 s",
        "x: 0 of 100, still starting after 1 min",
        "x: 0 of 100",
    ]


def test_while_nothing_moves_there_is_neither_rate_nor_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("train", 3456, stream=stream, clock=clock) as meter:
        meter.set(16)
        for _ in range(10):
            clock.now += 1
            meter.set(meter.done + 16)
        for _ in range(40):
            clock.now += 1
            meter.set(meter.done)
        clock.now += 10
        meter.set(meter.done + 16)
        shown = stream.getvalue().splitlines()
    assert shown[1] == "train: 176 of 3456, 16.0 images/s, 3 min left"
    assert shown[2].endswith("images/s, 3 min left"), "a pause of ten seconds is no halt"
    assert shown[3:5] == [
        "train: 176 of 3456, no new image for 20 s",
        "train: 176 of 3456, no new image for 40 s",
    ]
    assert shown[5].startswith("train: 192 of 3456, 2.9 images/s, ")


def test_images_that_come_in_blocks_keep_their_rate_between_two_blocks() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("predict", 1024, stream=stream, clock=clock) as meter:
        for second in range(240):
            clock.now += 1
            meter.set(second // 30 * 64)
    assert "no new image" not in "".join(stream.getvalue().splitlines()[8:])


def test_the_time_without_an_image_is_shown_without_a_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("x", 100, stream=stream, clock=clock):
        clock.now += 12
        for _ in range(500):
            if "12 s" in stream.getvalue():
                break
            time.sleep(0.01)
    assert "x: 0 of 100, still starting after 12 s\n" in stream.getvalue()


def test_lines_are_at_least_ten_seconds_apart() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("x", 1000, stream=stream, clock=clock) as meter:
        for done in range(1, 101):
            clock.now += LINE_EVERY_S / 10
            meter.set(done)
        middle = stream.getvalue().splitlines()[1:]
    assert 9 <= len(middle) <= 10


def test_images_of_an_earlier_run_are_named_and_not_part_of_the_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("x", 1000, already=500, stream=stream, clock=clock) as meter:
        assert stream.getvalue() == "x: starting, 1,000 images, 500 of them already done\n"
        clock.now += 1
        meter.set(500)
        assert meter.rate == 0
        clock.now += 1
        meter.set(510)
        clock.now += 10
        meter.set(610)
        assert meter.rate == pytest.approx(10)
    assert "x: 610 of 1000, 10.0 images/s, 39 s left" in stream.getvalue()


def test_work_done_in_one_report_has_the_rate_since_the_start() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressMeter("x", 100, already=50, stream=stream, clock=clock) as meter:
        clock.now += 5
        meter.set(100)
        assert meter.rate == pytest.approx(10)
    assert stream.getvalue().endswith("x: 100 of 100, 10.0 images/s\n")


def test_two_reports_at_the_same_moment_do_not_divide_by_zero() -> None:
    clock = Clock()
    with ProgressMeter("x", 100, stream=io.StringIO(), clock=clock) as meter:
        clock.now += 4
        meter.set(10)
        meter.set(20)
        assert meter.rate == pytest.approx(5)


def test_the_last_line_is_there_when_the_work_raises() -> None:
    stream = io.StringIO()

    def work() -> None:
        with ProgressMeter("x", 100, stream=stream, clock=Clock()) as meter:
            meter.set(40)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert stream.getvalue().splitlines()[-1].startswith("x: 40 of 100")


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, clock = Terminal(), Clock()
    with ProgressMeter("predict", 1000, already=100, stream=stream, clock=clock) as meter:
        clock.now += 20
        meter.set(300)
        clock.now += 20
        meter.set(1000)
        assert meter.rate == pytest.approx(35)
    shown = stream.getvalue()
    assert "predict" in shown
    assert "1000/1000" in shown
    assert "35.0 images/s" in shown
    assert "predict: starting" not in shown


def screen(text: str, columns: int) -> list[str]:
    """Return what a terminal shows in the end, for the control codes that `rich` writes."""
    lines, row = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece.endswith("A") and piece[0] == "\x1b":
            row -= int(piece[2:-1] or 1)
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece[0] not in "\x1b\r":
            lines[row] += piece
            assert len(lines[row]) <= columns, "longer than the terminal: it would become two"
    return [line for line in lines if line.strip()]


@pytest.mark.parametrize("columns", [200, 80, 60])
def test_a_terminal_has_one_live_line_with_rate_and_time_left(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream, clock = Terminal(), Clock()
    with ProgressMeter("predict", 100_064, stream=stream, clock=clock) as meter:
        meter.set(256)
        clock.now += 10
        meter.set(456)
        meter._bar.refresh()
        (line,) = screen(stream.getvalue(), columns)
        assert "456/100064" in line
        assert "20.0 images/s" in line
        assert line.rstrip().endswith("1 h 23 min left")


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
def test_a_terminal_without_cursor_control_has_lines(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", name) if name else monkeypatch.delenv("TERM", raising=False)
    stream = Terminal()
    with ProgressMeter("x", 1, stream=stream):
        pass
    assert stream.getvalue() == "x: starting, 1 image\nx: 0 of 1\n"


def test_nothing_is_shown_after_show_false(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress.show(False)
    try:
        with ProgressMeter("x", 100) as meter:
            meter.set(40)
            assert meter.rate > 0
    finally:
        progress.show(True)
    assert capsys.readouterr().err == ""


def test_a_timer_adds_up_the_seconds_of_each_step() -> None:
    times = iter([10.0, 11.5, 11.5, 14.0, 15.0])
    timer = StageTimer(lambda: next(times))
    for step in ("list", "wait", "predict", "list"):
        timer.end(step)
    assert timer.seconds == {"list": 2.5, "wait": 0.0, "predict": 2.5}
    assert list(timer.seconds) == ["list", "wait", "predict"]
