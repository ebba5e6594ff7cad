"""The text logs: one line an iteration, in the earlier ports' format, so that tools for their logs work."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from utils.cli import UserError

SCALARS = ("l1", "ae", "wgan_g", "wgan_d", "wgan_gp", "g", "d")
_ITERATION = re.compile(r"(?:^|\s)Iter: \[(\d+)/(\d+)\](.*)")
_PAIR = re.compile(r"(\w+): (\S+)")


class LogError(UserError):
    """A log cannot be written; the message names the file."""


def format_line(iteration: int, total: int, scalars: Mapping[str, float], speed: float) -> str:
    """``Iter: [100/500000] l1: 0.123456 ae: ... d: ... speed: 1.09 batches/s``, speed in batches a second.

    The scalars of the earlier ports come first, in their order; those there are none of are left out;
    others follow in the order given.
    """
    names = [name for name in SCALARS if name in scalars] + [name for name in scalars if name not in SCALARS]
    losses = "".join(f"{name}: {scalars[name]:.6f} " for name in names)
    return f"Iter: [{iteration}/{total}] {losses}speed: {speed:.2f} batches/s"


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


class TextLog:
    """Appends lines to a text file, each written out at once, and shows them on the terminal.

    path: the file; its folder is made if it is missing. resume_at: None, or the iteration a run goes on
    from: the lines of later iterations, which will be computed again, are cut off first, so that the log
    stays unbroken and holds every iteration once. Paths of this machine are shortened: the project's
    folder is left out, the home folder becomes ~. Raises LogError.
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

    def _error(self, error: OSError) -> LogError:
        return LogError(f"{self.path}: the log cannot be written: {error.strerror}")


def _cut_back(path: str, iteration: int) -> None:
    """Ends the log before its first line of a later iteration; a torn last line goes too."""
    with open(path, "rb") as file:
        lines = file.readlines()
    kept = len(lines)
    for number, line in enumerate(lines):
        values = parse_line(line.decode("utf-8", "replace"))
        if not line.endswith(b"\n") or (values and values["iteration"] > iteration):
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
