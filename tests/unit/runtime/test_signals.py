"""SIGTERM and Ctrl-C end a process with 75 and one line, whatever it does, until `close`.

Each case runs in a process of its own, which sends the signals to itself.
"""

import subprocess
import sys
import time

import pytest

from carvana_ray.runtime.signals import GRACE_S

SCRIPT = """
import ctypes, os, signal, sys, threading, time
from carvana_ray.runtime import signals
signal.signal(signal.SIGINT, {sigint})
def send():
    os.kill(os.getpid(), signal.{number})
with signals.stoppable("predict"):
    {body}
"""
LINE = "predict: stopped; run the same command again\n"
SWALLOW = """
    try:
        send(); time.sleep(30)
    except BaseException:
        pass
"""
# Python prints an error in `__del__` and goes on.
DESTROY = """
    class Sends:
        def __del__(self):
            send(); time.sleep(30)
    Sends()
    time.sleep(30)
"""
# A mutex that is locked twice waits without Python and is not ended by a signal.
NATIVE = """
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    threading.Timer(0.2, send).start()
    libc.pthread_mutex_lock(mutex)
"""


def ended(
    body: str, number: str = "SIGTERM", sigint: str = "signal.default_int_handler"
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a body; return the process and its seconds."""
    code = SCRIPT.format(body=body, number=number, sigint=sigint)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_blocks_in_order_then_the_process(number: str) -> None:
    body = """
    try:
        send(); time.sleep(30)
    finally:
        print("removed a draft", flush=True)
    """
    done, seconds = ended(body, number)
    assert (done.returncode, done.stdout, done.stderr) == (75, "removed a draft\n", LINE)
    assert seconds < GRACE_S


@pytest.mark.parametrize(
    "body",
    [SWALLOW + "\n    time.sleep(30)", DESTROY, NATIVE, SWALLOW + "\n    while True: pass"],
    ids=["swallowed", "destroyed", "native", "busy"],
)
def test_a_signal_that_raises_nothing_ends_the_process_after_the_time_of_grace(body: str) -> None:
    done, seconds = ended(f"signals.GRACE_S = 0.3\n{body}")
    assert (done.returncode, done.stdout, done.stderr) == (75, "", LINE)
    assert 0.3 <= seconds < 10


def test_the_second_signal_ends_the_process_at_once() -> None:
    body = f"signals.GRACE_S = 30\n{SWALLOW}\n    time.sleep(0.1); send(); time.sleep(30)"
    done, seconds = ended(body)
    assert (done.returncode, done.stderr) == (75, LINE)
    assert seconds < 10


def test_a_signal_after_close_changes_nothing() -> None:
    body = """
    signals.close()
    send(); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)
    print("result"); sys.exit(3)
    """
    done, _ = ended(body)
    assert (done.returncode, done.stdout, done.stderr) == (3, "result\n", "")


def test_a_swallowed_signal_before_close_prevents_the_result() -> None:
    done, _ = ended(f"{SWALLOW}\n    signals.close(); print('result')")
    assert (done.returncode, done.stdout, done.stderr) == (75, "", LINE)


def test_an_ignored_sigint_stays_ignored() -> None:
    done, _ = ended("send(); time.sleep(0.1); print('result')", "SIGINT", "signal.SIG_IGN")
    assert (done.returncode, done.stdout) == (0, "result\n")


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("lambda: 'all is kept'", "predict: stopped; all is kept\n"),
        ("lambda: 1 / 0", LINE),
        ("lambda: time.sleep(30)", LINE),
    ],
)
def test_the_line_says_what_is_kept_and_lost(note: str, said: str) -> None:
    done, seconds = ended(f"signals.set_stop_note({note}); send(); time.sleep(30)")
    assert (done.returncode, done.stderr) == (75, said)
    assert seconds < 10


def test_the_line_reaches_the_terminal_while_stderr_is_filtered() -> None:
    body = """
    from carvana_ray.runtime.stderr_filter import drop_lines
    signals.GRACE_S = 0.3
    with drop_lines(b"x"):
        try:
            send(); time.sleep(30)
        except BaseException:
            time.sleep(30)
    """
    done, _ = ended(body)
    assert (done.returncode, done.stderr) == (75, LINE)
