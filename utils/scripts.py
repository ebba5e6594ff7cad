"""The project's scripts as processes of their own, one after the other, for tools that need several of them."""

from __future__ import annotations

import hashlib
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
from utils.config import MASK_PROTOCOLS, TestConfig, config_digest
from utils.evaluation.report import portable_command
from utils.text_files import write_text

PROJECT = Path(__file__).resolve().parents[1]
PROGRESS = re.compile(r"\d+/\d+ \w+")  # a line of utils.progress
LAST_WRITTEN = "extremes.png"  # of test.py's files
DIGEST = "evaluated.txt"  # beside them


class ScriptError(UserError):
    """A script did not succeed; the message names its command."""


def command_line(arguments: Sequence[str]) -> str:
    """What to type in the project's folder for `run_script(arguments)`."""
    return shlex.join(["python", *arguments])


def run_script(arguments: Sequence[str]) -> None:
    """Runs a script of the project, arguments[0], and waits for its end. Its warnings and errors are shown alone.

    Ctrl-C, SIGTERM and the end of the terminal are passed on to it, unless they were ignored before (nohup), and it
    is given the time to end, in which train.py saves a checkpoint; then KeyboardInterrupt. Only for the main thread.
    Raises ScriptError.
    """
    received: list[int] = []
    process = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and number in received:
            return  # from the shell and from the system; a second signal would mean at once
        received.append(number)
        if process is not None:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
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


def evaluation_digest(config: TestConfig, photographs: Sequence[str], masks: Sequence[str] = ()) -> str:
    """SHA-256 of what an evaluation is of, besides its checkpoint: settings, the list's paths in full, saved masks.

    masks: the files of protocols mask_dir and mask_list, photograph by photograph; their paths and contents count.
    Raises ScriptError: a mask cannot be read; ValueError: such a protocol without masks.
    """
    if config.protocol in MASK_PROTOCOLS and not masks:
        raise ValueError(f"the masks of protocol {config.protocol} are missing")
    contents = {path: _content_digest(path) for path in dict.fromkeys(masks)}  # a list may name one many times
    lines = [config_digest(config), *map(os.path.abspath, photographs)]
    lines += [f"{contents[path]} {os.path.abspath(path)}" for path in masks]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _content_digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from None


def mark_evaluated(output: str, digest: str) -> None:
    """Notes what the results in `output`, which were just made, are of; see `evaluation_digest`."""
    write_text(os.path.join(output, DIGEST), f"{digest}\n")


def is_evaluated(arguments: Sequence[str], checkpoint: str, output: str, digest: str) -> bool:
    """Whether `output` holds all results of just this test.py command, made since the checkpoint was.

    digest: of `evaluation_digest`; paths are shortened in the command, and a list or mask may have been edited since.
    """
    summary, last, mark = (os.path.join(output, name) for name in ("test.txt", LAST_WRITTEN, DIGEST))
    try:
        with open(summary, encoding="utf-8") as file, open(mark, encoding="utf-8") as of:
            same = (file.readline(), of.read()) == (f"{portable_command(arguments)}\n", f"{digest}\n")
        times = [os.path.getmtime(path) for path in (checkpoint, summary, last, mark)]
        return same and times == sorted(times)
    except (OSError, ValueError):  # not there, or not text
        return False
