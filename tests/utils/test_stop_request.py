"""The first signal is noted, the second ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.stop_request import StopRequest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def handlers_put_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_first_and_second_signal(number, code, capfd):
    stop = StopRequest()
    assert stop.signal is None
    os.kill(os.getpid(), number)
    assert (stop.signal, stop.exit_code) == (number, code)
    assert capfd.readouterr().err == "stopping after this iteration; once more to stop at once\n"
    with pytest.raises(SystemExit) as end:
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143 and stop.signal == number


def test_a_terminal_that_is_gone(monkeypatch):
    """It cannot be written to, which must not end what the signal asked to stop in good order."""
    stop = StopRequest()

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", fail)
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.exit_code == 129


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.signal is None


def test_the_end_of_the_parent_is_a_request():
    """A process whose parent starts it and ends."""
    inner = (
        "import os, sys, time; from utils.stop_request import StopRequest; stop = StopRequest(with_parent=True)\n"
        "parent = os.getppid(); stop.stop_with_parent(); print(stop.signal, file=sys.stderr, flush=True)\n"
        "while os.getppid() == parent: time.sleep(0.01)\n"
        "stop.stop_with_parent(); print(stop.exit_code, flush=True)"
    )
    outer = (
        "import subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}], stderr=subprocess.PIPE, text=True); "
        "print(child.stderr.readline(), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", outer], cwd=PROJECT, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout.split() == ["None", "143"]


def test_without_a_parent_to_watch_nothing_happens():
    stop = StopRequest()
    stop.stop_with_parent()
    assert stop.signal is None
