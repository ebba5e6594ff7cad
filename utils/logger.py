"""The text logs: one line an iteration, in the earlier ports' format, so that tools for their logs work."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from utils.cli import UserError

SCALARS = ("l1", "ae", "wgan_g", "wgan_d", "wgan_gp", "g", "d")
_ITERATION = re.compile(r"(?:^|\s)Iter: \[(\d+)/(\d+)\](.*)")
_VALIDATION = re.compile(r"^Val: \[(\d+)/\d+\]")
_PAIR = re.compile(r"(\w+): (\S+)")


def format_line(
    iteration: int, total: int, scalars: Mapping[str, float], speed: float, seconds: float = 0, waiting: float = 0
) -> str:
    """``Iter: [100/500000] l1: 0.1235 ae: ... d: ... speed: 1.09 batches/s, 5.50 s/it, 3% wait, 6d8h left``

    The scalars of the earlier ports come first, in their order; those there are none of are left out; others follow
    in the order given. speed: batches a second. seconds: of an iteration, for the time left; 0: unknown.
    waiting: share of it spent waiting for data.
    """
    names = [name for name in SCALARS if name in scalars] + [name for name in scalars if name not in SCALARS]
    losses = "".join(f"{name}: {scalars[name]:.4g} " for name in names)
    line = f"Iter: [{iteration}/{total}] {losses}speed: {speed:.2f} batches/s"
    if seconds:
        left = duration(seconds * (total - iteration)).replace(" min", "m").replace(" ", "")
        line += f", {seconds:.{0 if seconds >= 100 else 2}f} s/it, {100 * waiting:.0f}% wait, {left} left"
    return line


def duration(seconds: float) -> str:
    """A time for people, in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


class Pace:
    """How fast a run goes, measured from one line of its log to the next.

    batches: a `data.loader.TrainLoader`, or has its `position` and `waited`. iteration: done so far.
    """

    def __init__(self, batches: Any, iteration: int) -> None:
        self._batches, self._last = batches, (iteration, batches.position, batches.waited, time.perf_counter())

    def line(self, iteration: int, total: int, scalars: Mapping[str, float]) -> str:
        """The log's line of an iteration."""
        now = (iteration, self._batches.position, self._batches.waited, time.perf_counter())
        iterations, used, waited, elapsed = (new - old for new, old in zip(now, self._last))
        self._last = now
        return format_line(iteration, total, scalars, used / elapsed, elapsed / iterations, waited / elapsed)


def parse_line(line: str) -> dict[str, float] | None:
    """iteration, total (int), every scalar and speed (float) of a log line; None for any other line.

    Reads the earlier ports' lines too, which begin with the time; "nan" becomes a float like any other.
    """
    match = _ITERATION.search(line)
    if not match:
        return None
    values: dict[str, float] = {"iteration": int(match[1]), "total": int(match[2])}
    for name, figure in _PAIR.findall(match[3]):
        try:
            values[name] = float(figure)
        except ValueError:
            return None
    return values


def show(text: str, stream: TextIO) -> None:
    """Prints on a terminal or a pipe, which may be gone or know ASCII alone: neither may end a run."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)  # around progress bars
        stream.flush()
    except (OSError, ValueError):  # a closed pipe, a vanished terminal, a closed stream
        pass


def warn(line: str) -> None:
    """A warning on standard error."""
    show(f"warning: {line}", sys.stderr)


class TextLog:
    """Appends lines to a text file, each written out at once, and shows them on the terminal.

    path: the file; its folder is made if it is missing. resume_at: None, or the iteration a run resumes
    from: the lines of later iterations, which will be computed again, are cut off first, so that the log
    stays unbroken and holds every iteration once. Paths of this machine are shortened: the project's
    folder is left out, the home folder becomes ~. Raises UserError.
    """

    def __init__(self, path: str, resume_at: int | None = None) -> None:
        self.path = path
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            if resume_at is not None and os.path.isfile(path):
                _cut_back(path, resume_at)
            self._file = open(path, "a", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise self._error(error) from None

    def write(self, text: str) -> None:
        """Adds one line, or several if ``text`` has line breaks."""
        text = _without_machine_paths(text.rstrip("\n"))
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except OSError as error:
            raise self._error(error) from None
        show(text, sys.stdout)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._error(error) from None

    def __enter__(self) -> TextLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _error(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: the log cannot be written: {error.strerror}")


def _cut_back(path: str, iteration: int) -> None:
    """Ends the log before its first line of a later iteration; a torn last line goes too."""
    with open(path, "rb") as file:
        lines = file.readlines()
    kept = len(lines)
    for number, line in enumerate(lines):
        text = line.decode("utf-8", "replace")
        match = _ITERATION.search(text) or _VALIDATION.search(text)
        if not line.endswith(b"\n") or (match and int(match[1]) > iteration):
            kept = number
            break
    if kept == len(lines):
        return
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.writelines(lines[:kept])
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _without_machine_paths(text: str) -> str:
    project = re.escape(str(Path(__file__).resolve().parents[1]))
    home = os.path.expanduser("~")
    begins, ends = r"(?<![\w./~-])", r"(?![\w-]|\.\w)"  # whole folder names, at the beginning of a path
    text = re.sub(f"{begins}{project}/", "", text)
    text = re.sub(f"{begins}{project}{ends}", ".", text)
    if home.strip("/~"):  # not "/", with which every path begins
        text = re.sub(f"{begins}{re.escape(home)}{ends}", "~", text)
    return text
