"""The project's scripts as processes of their own, one after the other, for tools that need several of them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from utils.cli import UserError
from utils.evaluation.report import portable_command

PROJECT = Path(__file__).resolve().parents[1]
PROGRESS = re.compile(r"\d+/\d+ \w+")  # a line of utils.progress
LAST_WRITTEN = "extremes.png"  # of test.py's files


class ScriptError(UserError):
    """A script did not succeed; the message names its command."""


def command_line(arguments: Sequence[str]) -> str:
    """What to type in the project's folder for `run_script(arguments)`."""
    return shlex.join(["python", *arguments])


def run_script(arguments: Sequence[str]) -> None:
    """Runs a script of the project, arguments[0], and waits for its end. Its warnings and errors are shown alone.

    Ctrl-C and SIGTERM are passed on to it and it is given the time to end, in which train.py saves a checkpoint;
    then KeyboardInterrupt. Only for the main thread. Raises ScriptError.
    """
    received: list[int] = []
    process = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    command = [sys.executable, str(PROJECT / arguments[0]), *arguments[1:]]
    try:
        # A session of its own: the terminal's Ctrl-C would reach it as well, and twice means at once.
        shown = None if sys.stderr.isatty() else subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=shown, start_new_session=True
        )
        if received:  # while it was being started
            process.send_signal(received[-1])
        _, messages = process.communicate()
    except OSError as error:
        raise ScriptError(f"{command_line(arguments)}: cannot be started: {error.strerror}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for line in (messages or b"").decode("utf-8", "replace").splitlines():
        if not PROGRESS.fullmatch(line):  # which only serves while it lasts
            print(line, file=sys.stderr)
    if received:
        raise KeyboardInterrupt
    code = process.returncode
    if code:
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise ScriptError(f"{command_line(arguments)}: {ended}; its own message is above")


def is_evaluated(arguments: Sequence[str], checkpoint: str, output: str) -> bool:
    """Whether `output` holds all results of just this test.py command, made since the checkpoint was."""
    summary, last = os.path.join(output, "test.txt"), os.path.join(output, LAST_WRITTEN)
    try:
        with open(summary, encoding="utf-8") as file:
            same = file.readline().rstrip("\n") == portable_command(arguments)
        return same and os.path.getmtime(checkpoint) <= os.path.getmtime(summary) <= os.path.getmtime(last)
    except (OSError, ValueError):  # not there, or not text
        return False
